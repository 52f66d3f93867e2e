"""botocore's own protocol test vectors, in the server's direction.

They are published with its source distribution, which is fetched once in the version that is installed and kept below
`.venvs/`; nothing of them is in this project. What a client sends must decode to what it meant, and what we encode
must be what a client is shown. Header and path bindings of REST-JSON have no codec here: the gateway passes the
runtime's headers on (`tests/gateway/test_invocation.py`).
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import botocore
import pytest
from botocore.model import OperationModel, ServiceModel, Shape

from clary.wire import codec, model, query

FOLDER = Path(__file__).parents[2] / ".venvs" / f"vectors-{botocore.__version__}"
# What our side of the protocol does on purpose, by the vector's id.
DELIBERATE = {
    "AwsJson11StructuresDontSerializeNullValues": "a client that sends nulls: they are dropped, see test_codec",
    "AwsJson11DateTimeWithNegativeOffset": "our answers have times as numbers, never with an offset",
    "AwsJson11DateTimeWithPositiveOffset": "our answers have times as numbers, never with an offset",
    "AwsJson11DeserializeIgnoreType": "our answers do not name the types of unions",
    "AwsJson10DeserializeIgnoreType": "the same",
    "AwsJson11SupportsNaNFloatInputs": "no number of the hosting API means anything as NaN or infinity: refused",
    "AwsJson11SupportsInfinityFloatInputs": "the same",
    "AwsJson11SupportsNegativeInfinityFloatInputs": "the same",
    "AwsJson10SupportsNaNFloatInputs": "the same",
    "AwsJson10SupportsInfinityFloatInputs": "the same",
    "AwsJson10SupportsNegativeInfinityFloatInputs": "the same",
    "QueryXmlLists": "botocore leaves it out too: its shapes contradict each other",
}


@cache
def suites(kind: str, protocol: str) -> list[dict[str, Any]]:
    file = FOLDER / kind / f"{protocol}.json"
    if not file.exists():
        _fetch()
    return list(json.loads(file.read_text())) if file.exists() else []


@cache
def _fetch() -> None:
    """Fetch the vectors, once for all test processes of a run: they must agree on the tests that there are."""
    FOLDER.parent.mkdir(exist_ok=True)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    missed = FOLDER.with_name(f"{FOLDER.name}.missed")
    with FOLDER.with_name(f"{FOLDER.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if FOLDER.exists() or (run and missed.exists() and missed.read_text() == run):
            return
        _download()
        if not FOLDER.exists():
            missed.write_text(run)


def _download() -> None:
    """Take the vectors out of botocore's source distribution, all at once."""
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        wanted = f"botocore=={botocore.__version__}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "botocore", wanted]
        try:
            done = subprocess.run([*command, "--dest", scratch], capture_output=True, timeout=600)
        except subprocess.TimeoutExpired:
            return
        archives = list(Path(scratch).glob("*.tar.gz"))
        if done.returncode != 0 or not archives:
            return
        with tarfile.open(archives[0]) as archive:
            for member in archive.getmembers():
                parts = Path(member.name).parts
                if parts[1:4] == ("tests", "unit", "protocols") and len(parts) == 6 and parts[4] in ("input", "output"):
                    member.name = str(Path(*parts[4:]))
                    archive.extract(member, Path(scratch) / "vectors", filter="data")
        (Path(scratch) / "vectors").rename(FOLDER)


def cases(kind: str, protocol: str) -> Iterator[Any]:
    found = suites(kind, protocol)
    if not found:
        skip = pytest.mark.skip(reason="the protocol vectors could not be fetched from the package index")
        yield pytest.param(None, None, marks=skip, id="unreachable")
    for suite in found:
        for case in suite["cases"]:
            yield pytest.param(suite, case, id=f"{case['id']}: {case.get('description', '')[:60]}")


def operation(suite: dict[str, Any], case: dict[str, Any]) -> OperationModel:
    name = case["given"]["name"]
    metadata = {"xmlNamespace": "https://example.com/", **suite["metadata"]}
    given = dict(case["given"])
    if "output" in given and metadata["protocol"] == "query":
        given["output"] = {**given["output"], "resultWrapper": f"{name}Result"}  # as every real service has it
    service = {**suite, "metadata": metadata, "operations": {name: given}}
    return ServiceModel(service, "vectors").operation_model(name)


def features(shape: Shape, seen: frozenset[str] = frozenset()) -> set[str]:
    """Name what no service that Clary speaks has in its model (a test below holds that true)."""
    if shape is None or shape.name in seen:
        return set()
    seen |= {shape.name}
    found = {"timestampFormat"} if "timestampFormat" in shape.serialization else set()
    if getattr(shape, "is_document_type", False):
        found.add("document")
    if shape.type_name == "map":
        found.add("map")
    for member in inner(shape):
        found |= features(member, seen)
    return found


def contains_itself(shape: Shape, above: frozenset[str] = frozenset()) -> bool:
    if shape.name in above:
        return True
    return any(contains_itself(member, above | {shape.name}) for member in inner(shape))


def inner(shape: Shape) -> list[Shape]:
    match shape.type_name:
        case "structure":
            return list(shape.members.values())
        case "list":
            return [shape.member]
        case "map":
            return [shape.key, shape.value]
        case _:
            return []


def with_bytes(shape: Shape, value: Any) -> Any:
    """Turn the text that stands for blobs in a vector into bytes."""
    match shape.type_name:
        case "blob" if isinstance(value, str):
            return value.encode()
        case "structure" if isinstance(value, dict):
            return {name: with_bytes(shape.members[name], item) if name in shape.members else item
                    for name, item in value.items()}  # fmt: skip
        case "list" if isinstance(value, list):
            return [with_bytes(shape.member, item) for item in value]
        case "map" if isinstance(value, dict):
            return {name: with_bytes(shape.value, item) for name, item in value.items()}
        case _:
            return value


@pytest.mark.parametrize(("service", "lacks"), [("sagemaker", {"timestampFormat", "document"}), ("sts", {"map"})])
def test_no_service_that_clary_speaks_has_what_is_left_out_here(service: str, lacks: set[str]) -> None:
    for name in model.service(service).operation_names:
        described = model.operation(service, name)
        assert not (features(described.input_shape) | features(described.output_shape)) & lacks, name


def plain(value: Any) -> Any:
    """Make values comparable: blobs as text, NaN equal to itself, numbers alike whatever their type."""
    match value:
        case dict():
            return {name: plain(item) for name, item in value.items() if item is not None}
        case list():
            return [plain(item) for item in value]
        case bytes():
            return value.decode("latin-1")
        case float() if math.isnan(value):
            return "NaN"
        case float() if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        case bool():
            return value
        case int() | float():
            return float(value)
        case _:
            return value


@pytest.mark.parametrize(("suite", "case"), [*cases("input", "json"), *cases("input", "json_1_0")])
def test_a_json_request_decodes_to_what_the_client_meant(suite: dict[str, Any], case: dict[str, Any]) -> None:
    if case["id"] in DELIBERATE:
        return
    shape = operation(suite, case).input_shape
    body = case["serialized"].get("body")
    if shape is None or body is None:
        return
    if features(shape) & {"timestampFormat", "document"}:
        return
    decoded = codec.decode(shape, codec.parse(body.encode()))
    assert plain(decoded) == plain(case["params"])


@pytest.mark.parametrize(("suite", "case"), [*cases("output", "json"), *cases("output", "json_1_0")])
def test_a_json_answer_is_encoded_as_clients_are_shown_it(suite: dict[str, Any], case: dict[str, Any]) -> None:
    shape = operation(suite, case).output_shape
    if case["id"] in DELIBERATE or shape is None or case["response"]["status_code"] >= 300:
        return
    body = case["response"].get("body", "").strip()
    if not body or "result" not in case:
        return
    if features(shape) & {"timestampFormat", "document"}:
        return
    known = codec.encode(shape, with_bytes(shape, case["result"]))
    shown = json.loads(body)
    # Members that the vector shows and the model does not know are there to be ignored by clients.
    shown = {name: value for name, value in shown.items() if name in known and value is not None}
    assert plain(json.loads(codec.dump(known))) == plain(shown)


@pytest.mark.parametrize(("suite", "case"), list(cases("input", "query")))
def test_a_query_request_decodes_to_what_the_client_meant(suite: dict[str, Any], case: dict[str, Any]) -> None:
    shape = operation(suite, case).input_shape
    body = case["serialized"].get("body")
    if case["id"] in DELIBERATE or shape is None or not body or features(shape) & {"timestampFormat", "map"}:
        return
    if contains_itself(shape) or "idempotencyToken" in json.dumps(suite["shapes"]):
        return  # no input that Clary reads contains itself, and a token that is filled in is not in `params`
    decoded = query.decode(shape, query.read_form(body.encode()))
    assert plain(decoded) == plain(case["params"])


@pytest.mark.parametrize(("suite", "case"), list(cases("output", "query")))
def test_a_query_answer_is_encoded_as_clients_are_shown_it(suite: dict[str, Any], case: dict[str, Any]) -> None:
    described = operation(suite, case)
    body = case["response"].get("body", "").strip()
    if described.output_shape is None or case["response"]["status_code"] >= 300 or not body or "result" not in case:
        return
    if case["id"] in DELIBERATE or features(described.output_shape) & {"timestampFormat"}:
        return
    result = with_bytes(described.output_shape, case["result"])
    ours = ElementTree.fromstring(query.result_document(described, result, "request"))
    shown = ElementTree.fromstring(body)
    assert _tree(ours[0]) == _tree(shown[0])


def _tree(element: ElementTree.Element) -> Any:
    children = [_tree(child) for child in element]
    name = element.tag.rpartition("}")[2]
    return (name, children or (element.text or "").strip())
