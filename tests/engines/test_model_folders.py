"""The folders of a multi-model container's models: whole or not there, whatever ends when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from clary.core.containers import ModelData
from clary.engines.fetching import Fetcher
from clary.engines.model_folders import ModelFolders
from clary.errors import ContainerGone, LaunchFailure
from clary.objects import Objects
from tests.engines.conftest import pack


class Fetching(Fetcher):
    """Counts what it fetches, and may stop in the middle of it."""

    def __init__(self, roots: Path) -> None:
        super().__init__(Objects(None, "", "", "us-east-1", (roots,)), 10**6, lambda role, action, url: self.refusal)
        self.refusal: str | None = None
        self.fetched: list[str] = []
        self.stop: Callable[[Path], None] = lambda place: None

    async def bring(self, data: ModelData, role_arn: str | None, place: Path) -> int:
        size = await super().bring(data, role_arn, place)
        self.fetched.append(data.url)
        self.stop(place)
        return size


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    return Fetching(tmp_path / "models")


@pytest.fixture
def folders(tmp_path: Path, fetching: Fetching) -> ModelFolders:
    made = ModelFolders(tmp_path / "data", fetching)
    made.create("c")
    return made


@pytest.fixture
def data(tmp_path: Path) -> ModelData:
    return ModelData(pack(tmp_path / "models" / "m.tar.gz", {"weights": "w" * 10}))


def shown(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data" / "c" / "shown").iterdir())


async def test_what_is_there_is_not_fetched_again(
    folders: ModelFolders, fetching: Fetching, data: ModelData, tmp_path: Path
) -> None:
    assert await folders.place("c", "m", data, None) == 10
    assert await folders.place("c", "m", data, None) == 10
    assert fetching.fetched == [data.url]
    assert (tmp_path / "data" / "c" / "shown" / "m" / "model" / "weights").read_text() == "w" * 10
    assert await folders.placed("c") == {"m": 10}
    assert list((tmp_path / "data" / "incoming").iterdir()) == []


async def test_a_load_that_is_given_up_leaves_nothing(
    folders: ModelFolders, fetching: Fetching, data: ModelData, tmp_path: Path
) -> None:
    def cancel(place: Path) -> None:
        raise asyncio.CancelledError

    fetching.stop = cancel
    with pytest.raises(asyncio.CancelledError):
        await folders.place("c", "m", data, None)
    assert shown(tmp_path) == []
    assert await folders.placed("c") == {}
    assert list((tmp_path / "data" / "incoming").iterdir()) == []


async def test_a_container_that_is_removed_meanwhile_gets_no_folder_of_its_own(
    folders: ModelFolders, fetching: Fetching, data: ModelData, tmp_path: Path
) -> None:
    def remove(place: Path) -> None:
        (tmp_path / "data" / "c").rename(tmp_path / "gone")

    fetching.stop = remove
    with pytest.raises(ContainerGone, match="c was stopped"):
        await folders.place("c", "m", data, None)
    assert not (tmp_path / "data" / "c").exists()
    assert list((tmp_path / "data" / "incoming").iterdir()) == []


async def test_the_role_is_asked_before_anything_is_shown(
    folders: ModelFolders, fetching: Fetching, data: ModelData, tmp_path: Path
) -> None:
    fetching.refusal = "it may not"
    with pytest.raises(LaunchFailure, match="it may not"):
        await folders.place("c", "m", data, "arn:aws:iam::000000000000:role/r")
    assert shown(tmp_path) == []
    assert fetching.fetched == []


async def test_the_folders_of_containers_that_are_gone_go(
    folders: ModelFolders, data: ModelData, tmp_path: Path
) -> None:
    folders.create("d")
    for container in ("c", "d"):
        await folders.place(container, "m", data, None)
    (tmp_path / "data" / "incoming" / "left").mkdir()
    await folders.retain(["d"])
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["d", "incoming"]
    assert list((tmp_path / "data" / "incoming").iterdir()) == []
    assert await folders.placed("d") == {"m": 10}
    await folders.remove("d")
    await folders.remove("nobody")
    assert await folders.placed("d") == {}
