"""What is read from botocore, and the alarm that rings when AWS changes it."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import Any

import pytest
from botocore.model import Shape

from clary.wire import model

from .shapes import HOSTING, operation

# As of botocore 1.44.5.
FINGERPRINTS = {
    "CreateModel": "39fbf6b05b63465e",
    "DescribeModel": "983966365d0b4e7c",
    "ListModels": "cb5336af4b699edc",
    "DeleteModel": "c776741258e622b2",
    "CreateEndpointConfig": "0b4ba0d831b73a93",
    "DescribeEndpointConfig": "1d9ea8c05d97233f",
    "ListEndpointConfigs": "d8fb490f63409ae1",
    "DeleteEndpointConfig": "d4ee1f6e1d999088",
    "CreateEndpoint": "e5fb4b7035f7fd28",
    "DescribeEndpoint": "2f0a3f176ed89586",
    "ListEndpoints": "a8e70c67fc447f98",
    "DeleteEndpoint": "a5227dfe5ac341fc",
    "AddTags": "6a441e872d26f3a6",
    "ListTags": "22ac2bdb329b802a",
    "DeleteTags": "3d7c3c84c6b9ca3b",
}


def describe_shape(shape: Shape | None, within: tuple[str, ...] = ()) -> Any:
    """What a client or a check can notice of a shape; documentation is not part of it."""
    if shape is None:
        return None
    if shape.name in within:
        return shape.name
    inner = (*within, shape.name)
    facts = {key: shape.metadata[key] for key in ("min", "max", "pattern", "enum") if key in shape.metadata}
    match shape.type_name:
        case "structure":
            members = {name: describe_shape(member, inner) for name, member in shape.members.items()}
            return ["structure", members, sorted(shape.required_members)]
        case "list":
            return ["list", facts, describe_shape(shape.member, inner)]
        case "map":
            return ["map", facts, describe_shape(shape.key, inner), describe_shape(shape.value, inner)]
        case kind:
            return [kind, facts]


def fingerprint(name: str) -> str:
    found = operation(name)
    facts = [describe_shape(found.input_shape), describe_shape(found.output_shape)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def test_hosting_operations_are_the_ones_that_clary_was_written_for() -> None:
    changed = {name: fingerprint(name) for name in HOSTING if fingerprint(name) != FINGERPRINTS.get(name)}
    assert not changed, (
        f"AWS changed the shapes of {', '.join(changed)}. Compare the new service model with the last one, decide what "
        f"Clary does with each new member or bound, then put the new fingerprints into this test: {changed}"
    )


def test_services_are_loaded_once() -> None:
    assert model.service("sagemaker") is model.service("sagemaker")


def test_unknown_services_and_operations_are_lookup_errors() -> None:
    with pytest.raises(LookupError, match="no service 'sagmaker'"):
        model.service("sagmaker")
    with pytest.raises(LookupError, match="no operation 'CreateModels'"):
        model.operation("sagemaker", "CreateModels")


def test_paths_in_service_names_are_no_way_to_the_disk() -> None:
    with pytest.raises(LookupError):
        model.service("../data/sagemaker")


def test_paginator_facts() -> None:
    assert model.paginator("sagemaker", "ListModels") == model.Paginator(
        input_tokens=("NextToken",), output_tokens=("NextToken",), limit_key="MaxResults", result_keys=("Models",)
    )
    assert model.paginator("sagemaker", "CreateModel") is None


def test_every_pattern_of_the_service_compiles() -> None:
    sagemaker = model.service("sagemaker")
    texts = {sagemaker.shape_for(name).metadata.get("pattern") for name in sagemaker.shape_names} - {None}
    assert len(texts) > 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in texts:
            model.pattern(text)


@pytest.mark.parametrize(
    ("text", "value", "matches"),
    [
        (r"\d{3}", "123", True),
        (r"\d{3}", "١٢٣", False),  # ASCII digits only, as in Java
        (r"[\w]+", "é", False),
        (r"[\p{Alnum}\-]+", "a-1", True),
        (r"[\p{Alnum}\-]+", "é", False),
        (r"\p{Print}*", "a b", True),
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", "é 1", True),
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", "a!", False),
        (r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,128}", "key", True),  # a quantified end, accepted by Java
        (r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,128}", "a!", False),
        (r"(https|s3)://([^/])/?(.*)", "s3://bucket/key", True),
        (r"(https|s3)://([^/]+)/?(.*)", "s3://bucket/a\rb", False),  # a dot stops at every line terminator
        (r"abc\z", "abc", True),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*", "a\n\N{GRINNING FACE}", True),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*", "\x00", False),
        (r"[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?", "name\n", False),
    ],
)
def test_patterns_are_read_as_java_reads_them(text: str, value: str, matches: bool) -> None:
    assert (model.pattern(text).fullmatch(value) is not None) is matches


def test_instance_types_of_clarys_own_are_added_and_aws_s_are_kept() -> None:
    shape = model.service("sagemaker").shape_for("ProductionVariantInstanceType")
    assert shape.enum[-1] == "ml.clary.local"
    assert "ml.m5.large" in shape.enum
