"""The artifact cache: one download for all, whole or not there, bounded."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from clary.core.containers import ModelData
from clary.engines import archive
from clary.engines.artifacts import Artifacts
from clary.errors import LaunchFailure, Transient
from clary.objects import AtHand, Count, ObjectHead, Objects
from tests.engines.conftest import pack


class Counting(Objects):
    """Counts downloads, and can hold them up. Its files are as good as those of another machine."""

    def __init__(self, root: Path) -> None:
        super().__init__(None, "", "", "us-east-1", (root,))
        self.downloads = 0
        self.open = asyncio.Event()
        self.open.set()

    def at_hand(self, url: str) -> AtHand | None:
        return None

    async def download(self, url: str, path: Path, progress: Count) -> None:
        self.downloads += 1
        await self.open.wait()
        shutil.copyfile(self._file(url), path)


@pytest.fixture
def objects(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


@pytest.fixture
def make(tmp_path: Path, objects: Counting) -> Callable[..., Artifacts]:
    def make(limit: int = 10**9, max_bytes: int = 10**8) -> Artifacts:
        return Artifacts(tmp_path / "artifacts", objects, limit, max_bytes)

    return make


def quiet(_: str) -> None:
    """Progress that nobody follows."""


async def test_concurrent_launches_share_one_download(
    tmp_path: Path, objects: Counting, make: Callable[..., Artifacts]
) -> None:
    url, artifacts = pack(tmp_path / "m.tar.gz", {"weights": "w"}), make()
    found = await asyncio.gather(*(artifacts.get(ModelData(url), f"c{n}", quiet) for n in range(5)))
    assert objects.downloads == 1
    assert len({artifact.path for artifact in found}) == 1
    assert (found[0].path / "weights").read_text() == "w"


async def test_it_goes_on_when_the_first_who_wanted_it_gives_up(
    tmp_path: Path, objects: Counting, make: Callable[..., Artifacts]
) -> None:
    url, artifacts = pack(tmp_path / "m.tar.gz", {"weights": "w"}), make()
    objects.open.clear()
    first = asyncio.ensure_future(artifacts.get(ModelData(url), "c1", quiet))
    second = asyncio.ensure_future(artifacts.get(ModelData(url), "c2", quiet))
    while not objects.downloads:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)
    first.cancel()
    objects.open.set()
    assert (await second).path.is_dir()
    assert first.cancelled()
    assert not list((tmp_path / "artifacts" / "incoming").iterdir())


async def test_a_replaced_object_is_another_artifact(
    tmp_path: Path, objects: Counting, make: Callable[..., Artifacts]
) -> None:
    artifacts = make()
    one = await artifacts.get(ModelData(pack(tmp_path / "m.tar.gz", {"v": "1"})), "c1", quiet)
    two = await artifacts.get(ModelData(pack(tmp_path / "m.tar.gz", {"v": "2", "more": ""})), "c2", quiet)
    assert (one.path / "v").read_text() == "1"
    assert (two.path / "v").read_text() == "2"


async def test_it_is_kept_across_lives(tmp_path: Path, objects: Counting, make: Callable[..., Artifacts]) -> None:
    url = pack(tmp_path / "m.tar.gz", {"v": "1"})
    assert await make().get(ModelData(url), "c1", quiet) == await make().get(ModelData(url), "c2", quiet)
    assert objects.downloads == 1


async def test_what_a_crash_left_is_removed_and_what_is_at_work_is_not(
    tmp_path: Path, objects: Counting, make: Callable[..., Artifacts]
) -> None:
    incoming = tmp_path / "artifacts" / "incoming"
    (incoming / "left" / "model").mkdir(parents=True)
    objects.open.clear()
    artifacts = make()
    assert not list(incoming.iterdir())
    under_way = asyncio.ensure_future(artifacts.get(ModelData(pack(tmp_path / "m.tar.gz", {"v": "1"})), "c1", quiet))
    while not objects.downloads:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)
    make()
    objects.open.set()
    assert (await under_way).path.is_dir()


async def test_the_longest_unused_goes_first_and_what_is_held_stays(
    tmp_path: Path, objects: Counting, make: Callable[..., Artifacts]
) -> None:
    urls = [pack(tmp_path / f"{n}.tar.gz", {"w": bytes([n]) * 1000}) for n in range(4)]
    artifacts = make(limit=2500)
    held = await artifacts.get(ModelData(urls[0]), "alive", quiet)
    others = []
    for n in (1, 2, 3):
        others.append(await artifacts.get(ModelData(urls[n]), "passing", quiet))
        os.utime(others[-1].path.parent / "artifact.json", (n, n))
        os.utime(held.path.parent / "artifact.json", (0, 0))
        artifacts.release("passing")
    assert held.path.is_dir()
    assert [artifact.path.is_dir() for artifact in others] == [False, False, True]


async def test_refusals_name_the_step_and_the_cause(tmp_path: Path, make: Callable[..., Artifacts]) -> None:
    (tmp_path / "m.tar.gz").write_bytes(b"no tar")
    cases = (
        ((tmp_path / "m.tar.gz").as_uri(), 10**6, "unpack", "It is not a gzip'ed tar"),
        ((tmp_path / "no.tar.gz").as_uri(), 10**6, "download", "no.tar.gz"),
        (pack(tmp_path / "l.tar.gz", {"w": bytes(1000)}), 100, "size", "--max-artifact"),
    )
    for url, limit, step, words in cases:
        with pytest.raises(LaunchFailure) as refused:
            await make(max_bytes=limit).get(ModelData(url), "c", quiet)
        assert (refused.value.step, words in refused.value.message) == (step, True), refused.value.message
    assert not list((tmp_path / "artifacts" / "incoming").iterdir())


async def test_an_object_that_changes_meanwhile_is_not_taken(tmp_path: Path) -> None:
    class Changing(Counting):
        async def head(self, url: str) -> ObjectHead:
            return ObjectHead(1, str(self.downloads))

    artifacts = Artifacts(tmp_path / "artifacts", Changing(tmp_path), 10**9, 10**8)
    with pytest.raises(Transient, match="was replaced"):
        await artifacts.get(ModelData(pack(tmp_path / "m.tar.gz", {"v": "1"})), "c", quiet)


async def test_an_archive_of_this_machine_is_unpacked_from_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def download(self: Objects, url: str, path: Path, progress: Count) -> None:
        raise AssertionError("it is here")

    monkeypatch.setattr(Objects, "download", download)
    url = pack(tmp_path / "m.tar.gz", {"v": "1"})
    found = await _of_this_machine(tmp_path).get(ModelData(url), "c", quiet)
    assert (found.path / "v").read_text() == "1"


@pytest.mark.parametrize("refused", [True, False])
async def test_what_is_written_over_while_it_is_unpacked_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    def unpack(packed: IO[bytes], target: Path, max_bytes: int, cancelled: threading.Event) -> int:
        target.mkdir()
        (tmp_path / "m.tar.gz").write_bytes(b"other bytes")
        if refused:
            raise archive.Refused("half of one and half of another")
        return 1

    url = pack(tmp_path / "m.tar.gz", {"v": "1"})
    monkeypatch.setattr(archive, "unpack", unpack)
    with pytest.raises(Transient, match="was replaced"):
        await _of_this_machine(tmp_path).get(ModelData(url), "c", quiet)
    assert not list((tmp_path / "artifacts" / "incoming").iterdir())


def _of_this_machine(root: Path) -> Artifacts:
    return Artifacts(root / "artifacts", Objects(None, "", "", "us-east-1", (root,)), 10**9, 10**8)
