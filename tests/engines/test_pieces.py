"""Model data that is not packed: which objects, under which names, and which names are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from clary.engines.artifacts import Artifacts
from clary.engines.pieces import Piece, download, find
from clary.errors import LaunchFailure, Transient
from clary.objects import Count, ObjectHead, ObjectNotFound, Objects

FOLDER = "s3://b/m/"


class Bucket(Objects):
    """Objects in a dict, by their paths in the one folder there is."""

    def __init__(self, **objects: str) -> None:
        super().__init__(None, "", "", "us-east-1", ())
        self.objects = objects
        self.downloads: list[str] = []

    async def head(self, url: str) -> ObjectHead:
        path = url.removeprefix(FOLDER)
        if path not in self.objects:
            raise ObjectNotFound(f"{url}: there is no such object")
        return ObjectHead(len(self.objects[path]), self.objects[path])

    async def below(self, url: str) -> Sequence[tuple[str, str, ObjectHead]]:
        return [(FOLDER + path, path, await self.head(FOLDER + path)) for path in sorted(self.objects)]

    async def download(self, url: str, path: Path, progress: Count) -> None:
        self.downloads.append(url)
        text = self.objects[url.removeprefix(FOLDER)]
        path.write_text(text)
        progress(len(text), len(text))


def quiet(_: str) -> None:
    """Progress that nobody follows."""


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(**{"config.json": "{}", "weights/1": "one", "weights/2": "two"})


def tree(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


async def test_a_prefix_becomes_the_tree_below_it(bucket: Bucket, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, bucket, 10**9, 10**8)
    found = await artifacts.get(FOLDER, "c1", quiet, "prefix")
    assert tree(found.path) == bucket.objects
    assert await artifacts.get(FOLDER, "c2", quiet, "prefix") == found
    assert len(bucket.downloads) == 3


async def test_an_object_becomes_a_file_under_the_end_of_its_key(bucket: Bucket, tmp_path: Path) -> None:
    found = await Artifacts(tmp_path, bucket, 10**9, 10**8).get(f"{FOLDER}weights/1", "c1", quiet, "object")
    assert tree(found.path) == {"1": "one"}


async def test_a_changed_object_makes_another_tree(bucket: Bucket, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, bucket, 10**9, 10**8)
    old = await artifacts.get(FOLDER, "c1", quiet, "prefix")
    bucket.objects["weights/3"] = "three"
    new = await artifacts.get(FOLDER, "c2", quiet, "prefix")
    assert tree(new.path).keys() - tree(old.path).keys() == {"weights/3"}


async def test_what_changes_during_the_download_is_tried_again(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def replaced(url: str, path: Path, progress: Count) -> None:
        path.write_text("half old")
        bucket.objects["config.json"] = "{ }"

    monkeypatch.setattr(bucket, "download", replaced)
    with pytest.raises(Transient, match="replaced"):
        await Artifacts(tmp_path, bucket, 10**9, 10**8).get(FOLDER, "c1", quiet, "prefix")
    assert not list((tmp_path / "incoming").iterdir())


async def test_the_pieces_together_have_a_limit(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(LaunchFailure, match="--max-artifact"):
        await Artifacts(tmp_path, bucket, 10**9, 7).get(FOLDER, "c1", quiet, "prefix")
    assert bucket.downloads == []


async def test_progress_counts_all_pieces_together(bucket: Bucket, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    pieces = await find(bucket, FOLDER, "prefix")
    await download(bucket, pieces, tmp_path / "model", lambda done, total: told.append((done, total)))
    assert told == [(2, 8), (5, 8), (8, 8)]


async def test_an_empty_prefix_and_a_missing_object_are_named() -> None:
    with pytest.raises(LaunchFailure, match="s3://b/m/: there is no object"):
        await find(Bucket(), FOLDER, "prefix")
    with pytest.raises(LaunchFailure, match="s3://b/m/none: there is no such object"):
        await find(Bucket(), f"{FOLDER}none", "object")


@pytest.mark.parametrize("path", ["", "a//b", "../x", "a/../x", ".", "a\0b", "é" * 128])
async def test_keys_that_cannot_be_files_are_refused(path: str) -> None:
    with pytest.raises(LaunchFailure, match="cannot be the name of a file") as refused:
        await find(Bucket(**{path: "x"}), FOLDER, "prefix")
    assert refused.value.step == "download"


async def test_a_file_that_is_a_directory_too_is_refused() -> None:
    with pytest.raises(LaunchFailure, match="'weights' would be a file and a directory"):
        await find(Bucket(**{"weights": "", "weights/a/b": "x"}), FOLDER, "prefix")


async def test_names_of_the_longest_length_are_fine() -> None:
    assert await find(Bucket(**{"a" * 255: "x"}), FOLDER, "prefix") == [
        Piece(FOLDER + "a" * 255, "a" * 255, ObjectHead(1, "x"))
    ]
