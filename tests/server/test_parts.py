"""What several roles are built from."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from clary.objecterrors import ObjectNotFound
from clary.objects import CHUNK
from clary.objectstore.disk import About, Disk, anything
from clary.server import parts
from clary.server.parts import allow_descriptors
from clary.settings import Settings


def test_a_gateway_may_have_as_many_descriptors_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: set_to.append(limit))
    allow_descriptors()
    assert set_to == [(resource.RLIMIT_NOFILE, (4096, 4096))]


def test_a_system_that_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*limit: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_descriptors()


async def test_what_is_in_the_bundled_s3_is_read_from_its_disk_as_it_would_be_through_the_front_door(
    tmp_path: Path,
) -> None:
    settings = Settings(data=tmp_path)
    disk = Disk(settings.objects)
    disk.create_bucket("models")
    incoming = disk.incoming()
    incoming.write(b"x" * (CHUNK + 1))
    disk.commit("models", "a/b", incoming, About(incoming.md5.hex()), anything)
    objects = parts.objects(settings)  # nobody listens at the front door
    head = await objects.head("s3://models/a/b")
    assert (head.size, head.etag) == (CHUNK + 1, f'"{incoming.md5.hex()}"')
    told: list[tuple[int, int]] = []
    await objects.download("s3://models/a/b", tmp_path / "out", lambda *each: told.append(each))
    assert (tmp_path / "out").read_bytes() == b"x" * (CHUNK + 1)
    assert told == [(CHUNK, CHUNK + 1), (CHUNK + 1, CHUNK + 1)]
    for missing in ("s3://models/a", "s3://other/a/b"):
        with pytest.raises(ObjectNotFound):
            await objects.head(missing)
        with pytest.raises(ObjectNotFound):
            await objects.download(missing, tmp_path / "none", lambda *each: None)
