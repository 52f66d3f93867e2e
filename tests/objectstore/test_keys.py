"""Keys become file names and come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.errors import AwsError
from clary.objectstore.keys import CONTINUED, EMPTY, from_name, to_path

CHARACTER = st.sampled_from("ab./%-eo\0é日") | st.characters(exclude_categories=["Cs"])


@given(st.text(CHARACTER, min_size=1, max_size=300).filter(lambda key: len(key.encode()) <= 1024))
def test_every_key_has_a_path_of_its_own_and_comes_back(key: str) -> None:
    names = to_path(key)
    for name in names:
        assert name not in ("", ".", "..")
        assert not set("/\0") & set(name)
        assert len(name.encode()) < 220
    segments = [""]
    for name in names:
        text = from_name(name.removesuffix(CONTINUED))
        assert text is not None
        segments[-1] += text
        if not name.endswith(CONTINUED):
            segments.append("")
    assert "/".join(segments[:-1]) == key


def test_an_ordinary_key_is_its_own_path() -> None:
    assert to_path("models/my model-1.0/model.tar.gz") == ["models", "my model-1.0", "model.tar.gz"]


def test_what_a_file_system_cannot_say_is_escaped() -> None:
    assert to_path("a//b/../50%/") == ["a", EMPTY, "b", "%2E%2E", "50%25", EMPTY]


@pytest.mark.parametrize("name", ["50%", "%2e", "a%", "%41", ".", "..", "", "x" * 201, "\udc80"])
def test_a_name_that_no_key_leads_to_is_nobodys(name: str) -> None:
    assert from_name(name) is None


@pytest.mark.parametrize("key", ["", "k" * 1025, "é" * 513])
def test_a_key_has_1_to_1024_bytes(key: str) -> None:
    with pytest.raises(AwsError) as caught:
        to_path(key)
    assert (caught.value.code, caught.value.status) == ("KeyTooLongError", 400)
