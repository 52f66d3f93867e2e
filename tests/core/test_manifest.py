"""Manifests of transform jobs."""

from __future__ import annotations

import json

import pytest

from clary.core.manifest import listed


@pytest.mark.parametrize("prefix", ["s3://b/in", "s3://b/in/"])
def test_the_slash_between_prefix_and_key_may_be_on_either_side(prefix: str) -> None:
    keys = ["x.csv", "y/x.csv"]
    written = keys if prefix.endswith("/") else [f"/{key}" for key in keys]
    found = listed(json.dumps([{"prefix": prefix}, *written]).encode(), "s3://b/m", lambda url: url)
    assert list(found) == [("s3://b/in/x.csv", "x.csv"), ("s3://b/in/y/x.csv", "y/x.csv")]
