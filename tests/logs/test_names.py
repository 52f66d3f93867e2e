"""Names of groups and streams become paths that can be read, and back again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.errors import AwsError
from clary.logs.names import group_folder, group_name, stream_file, stream_name, times_file

ROOT = Path("/logs")
GROUPS = st.text("ab./-_#~%:", min_size=1, max_size=20)
STREAMS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":*"), min_size=1, max_size=20)


def test_paths_are_what_a_human_expects() -> None:
    file = stream_file(ROOT, "/aws/sagemaker/Endpoints/iris", "AllTraffic/i-01/pre")
    assert file == ROOT / "aws/sagemaker/Endpoints/iris/AllTraffic:i-01:pre.log"
    assert group_folder(ROOT, "app") == ROOT / "~/app"
    assert stream_file(ROOT, "/a", "größe 1 [$LATEST]").name == "größe 1 [$LATEST].log"


@given(GROUPS)
def test_a_folder_tells_its_group(group: str) -> None:
    folder = group_folder(ROOT, group)
    assert group_name(ROOT, folder) == group
    assert folder.resolve() == folder and ROOT in folder.parents


@given(STREAMS)
def test_a_file_tells_its_stream(stream: str) -> None:
    file = stream_file(ROOT, "/g", stream)
    assert stream_name(file) == stream
    assert file.parent == ROOT / "g" and not file.name.startswith(".")


@given(GROUPS, STREAMS, GROUPS, STREAMS)
def test_no_two_streams_share_a_file_and_none_is_a_folder(group: str, stream: str, other: str, second: str) -> None:
    file = stream_file(ROOT, group, stream)
    assert (file == stream_file(ROOT, other, second)) is ((group, stream) == (other, second))
    assert file not in (group_folder(ROOT, other), *group_folder(ROOT, other).parents)
    assert times_file(file) not in (stream_file(ROOT, other, second), group_folder(ROOT, other))


@pytest.mark.parametrize(
    ("group", "stream"),
    [("/..", "x"), ("/a/../..", "x"), ("/a", "../../x"), ("/a", ".."), ("/a", "x\0/\n"), ("/", "/")],
)
def test_hostile_names_stay_below_the_root(tmp_path: Path, group: str, stream: str) -> None:
    file = stream_file(tmp_path, group, stream)
    assert ".." not in file.parts
    file.parent.mkdir(parents=True)
    file.write_text("")
    assert list(tmp_path.rglob("*.log")) == [file]


def test_a_name_too_long_for_a_file_is_refused() -> None:
    for group, stream in (("/" + "g" * 300, "s"), ("/g", "s" * 300)):
        with pytest.raises(AwsError, match="too long") as refused:
            stream_file(ROOT, group, stream)
        assert refused.value.code == "InvalidParameterException"
