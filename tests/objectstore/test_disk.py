"""Objects on disk survive whatever dies, and show what is there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest import mock

import pytest

from clary.errors import AwsError
from clary.objectstore.disk import About, Disk, Stored, anything, is_bucket_name


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    made = Disk(tmp_path)
    made.create_bucket("bucket")
    return made


def put(disk: Disk, key: str, data: bytes, **headers: str) -> None:
    incoming = disk.incoming()
    incoming.write(data)
    disk.commit("bucket", key, incoming, About(incoming.md5.hex(), headers), anything)


def metadata(disk: Disk) -> list[Path]:
    return [path for path in (disk.root / ".clary" / "meta").rglob("*") if path.is_file()]


@pytest.mark.parametrize("step", ["rename of the metadata", "rename of the bytes", "removal of the old metadata"])
def test_a_kill_at_any_step_leaves_the_old_object_or_the_new(disk: Disk, step: str) -> None:
    put(disk, "k", b"old", note="old")
    rename, unlink, renames = Path.rename, Path.unlink, 0

    def dying_rename(path: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if step == ("rename of the metadata", "rename of the bytes")[renames - 1]:
            raise KeyboardInterrupt
        return rename(path, target)

    def dying_unlink(path: Path, missing_ok: bool = False) -> None:
        if "meta" in path.parts:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    patches = mock.patch.multiple(Path, rename=dying_rename if "rename" in step else rename, unlink=dying_unlink)
    with patches, pytest.raises(KeyboardInterrupt):
        put(disk, "k", b"new", note="new")
    found = Disk(disk.root).find("bucket", "k")
    expected = "new" if step == "removal of the old metadata" else "old"
    assert (found.path.read_text(), found.about.headers) == (expected, {"note": expected})
    put(disk, "k", b"newest", note="newest")
    assert disk.find("bucket", "k").about.headers == {"note": "newest"}


def test_replacing_and_deleting_leave_nothing_behind(disk: Disk) -> None:
    for number in range(3):
        put(disk, "a/b", b"%d" % number)
    assert len(metadata(disk)) == 1
    disk.delete("bucket", "a/b")
    assert metadata(disk) == []
    assert list((disk.root / "bucket").iterdir()) == []
    assert list((disk.root / ".clary" / "tmp").iterdir()) == []


def test_two_equal_writes_in_a_row_keep_their_own_metadata(disk: Disk) -> None:
    put(disk, "k", b"same", note="1")
    put(disk, "k", b"same", note="2")
    assert disk.find("bucket", "k").about.headers == {"note": "2"}
    assert len(metadata(disk)) == 1


def test_a_reader_keeps_the_bytes_that_it_opened(disk: Disk) -> None:
    put(disk, "k", b"old")
    stored, file = disk.open("bucket", "k")
    put(disk, "k", b"newer")
    with file:
        assert (file.read(), stored.size) == (b"old", 3)


def test_metadata_of_other_bytes_is_not_believed(disk: Disk) -> None:
    put(disk, "k.json", b"old", note="old")
    (disk.root / "bucket" / "k.json").write_bytes(b"by hand")
    found = disk.find("bucket", "k.json")
    assert found.about.headers == {"content-type": "application/json"}
    assert found.about.etag.endswith("-1")


def test_what_was_abandoned_is_swept_at_start_and_what_is_under_way_is_not(disk: Disk) -> None:
    old, young = disk.incoming(), disk.incoming()
    for each in (old, young):
        each.close()
    week_ago = time.time() - 8 * 86400
    os.utime(old.path, (week_ago, week_ago))
    Disk(disk.root)
    assert (old.path.exists(), young.path.exists()) == (False, True)


def test_a_condition_sees_what_it_replaces(disk: Disk) -> None:
    seen: list[Stored | None] = []
    for data in (b"1", b"22"):
        incoming = disk.incoming()
        incoming.write(data)
        disk.commit("bucket", "k", incoming, About("e"), seen.append)
    assert [each and each.size for each in seen] == [None, 1]


def test_the_private_folder_is_no_bucket(disk: Disk) -> None:
    assert [name for name, _ in disk.buckets()] == ["bucket"]
    with pytest.raises(AwsError) as caught:
        disk.find(".clary", "lock")
    assert caught.value.code == "NoSuchBucket"


@pytest.mark.parametrize(
    ("name", "valid"),
    [("abc", True), ("a-b.c1", True), ("ab", False), ("a" * 64, False), ("Abc", False), ("a/b", False), ("-ab", False)],
)
def test_bucket_names(name: str, valid: bool) -> None:
    assert is_bucket_name(name) is valid
