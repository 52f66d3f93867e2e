"""Keys below a multi-model container's prefix."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from clary.core.containers import ModelPrefix
from clary.core.target_model import data_of


@pytest.mark.parametrize("key", ["%2e%2e/secret.tar.gz", "%2E%2E%2Fsecret.tar.gz", "a%2fb", "%61.tar.gz", "a?b", "a#b"])
@pytest.mark.parametrize("prefix", ["file:///srv/models/", "https://bucket.s3.us-east-1.amazonaws.com/models"])
def test_a_key_means_itself_also_where_urls_are_escaped(key: str, prefix: str) -> None:
    """Escapes in a caller's key would lead out of the prefix, or be a second name of a model that policies forbid."""
    parts = urlsplit(data_of(ModelPrefix(prefix), key).url)
    assert (parts.query, parts.fragment) == ("", "")
    path = unquote(parts.path)
    assert path.endswith(f"/models/{key}")
    assert ".." not in Path(path).parts


def test_nothing_is_escaped_in_the_urls_of_s3() -> None:
    assert data_of(ModelPrefix("s3://bucket/models"), "a %2e?#.tar.gz").url == "s3://bucket/models/a %2e?#.tar.gz"
