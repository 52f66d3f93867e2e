"""Archives that want to do harm, each trick built here."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from clary.engines import archive

GO_ON = threading.Event()


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    data = more.pop("data", b"")
    assert isinstance(data, bytes)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def build(path: Path, *members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w:gz", format=kind) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def unpack(path: Path, max_bytes: int = 10**7) -> Path:
    target = path.with_name("out")
    with path.open("rb") as packed:
        archive.unpack(packed, target, max_bytes, GO_ON)
    return target


LINK = tarfile.SYMTYPE


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([member("/etc/x")], "'/etc/x': its path is absolute"),
        ([member("a/../../x")], "'a/../../x': its path has '..' in it"),
        ([member("..", tarfile.DIRTYPE)], "its path has '..' in it"),
        ([member("a", LINK, linkname="/etc/passwd")], "link to the absolute path '/etc/passwd'"),
        ([member("a", LINK, linkname="../x")], "'a': it is a link that leaves the archive: '../x'"),
        ([member("d/a", LINK, linkname="../../x")], "leaves the archive"),
        ([member("a", LINK, linkname="b")], "leads nowhere"),
        ([member("a", LINK, linkname="b"), member("b", LINK, linkname="a")], "leads nowhere"),
        ([member("d", tarfile.DIRTYPE), member("a", LINK, linkname="d")], "something other than a file"),
        ([member("f"), member("a", tarfile.LNKTYPE, linkname="f")], "'a': it is a hard link"),
        ([member("a", tarfile.LNKTYPE, linkname="/etc/passwd")], "a hard link"),
        ([member("a", tarfile.FIFOTYPE)], "'a': it is a FIFO"),
        ([member("a", tarfile.CHRTYPE)], "'a': it is a device"),
        ([member("a", tarfile.BLKTYPE)], "'a': it is a device"),
        ([member("a", LINK, linkname="b"), member("a/x")], "'a': it is a file or a link and also a directory"),
        ([member("a/x"), member("a", LINK, linkname="b")], "'a': it occurs twice"),
        ([member("a", data=b"1"), member("./a", data=b"2")], "'a': it occurs twice"),
        ([member("a"), member("a/b")], "also a directory"),
        ([member("a"), member("a", tarfile.DIRTYPE)], "also a directory"),
        ([member("./")], "only a directory can be the root"),
        ([member("x" * 256)], "its name is too long"),
        ([member("/".join(["abc"] * 300))], "its name is too long"),
        ([member("a\udcff")], "its name is not UTF-8"),
        ([member("a", LINK, linkname="\udcff")], "target is not UTF-8"),
        ([member("a", pax_headers={"path": "b\0c"})], "NUL|NUL"),
        ([member("a", pax_headers={"comment": "x" * 2_000_000})], "An extended header claims to have"),
        ([member("a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})], "sparse|make no sense"),
    ],
)
def test_a_trick_is_refused_by_name(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], why: str) -> None:
    path = build(tmp_path / "model.tar.gz", *members)
    with pytest.raises(archive.Refused) as refused:
        unpack(path)
    assert any(part in str(refused.value) for part in why.split("|"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.tar.gz", "out"]


def test_a_name_that_is_not_utf8_in_an_old_header_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path / "model.tar.gz", member("a\udcff"), kind=tarfile.GNU_FORMAT)
    with pytest.raises(archive.Refused, match="its name is not UTF-8"):
        unpack(path)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def corrupt(data: bytes) -> bytes:
    return data[:-8] + bytes(4) + data[-4:]


@pytest.mark.parametrize(
    "spoil",
    [cut, corrupt, gzip.decompress, lambda _: b"", lambda _: b"PK\x03\x04zip", lambda _: gzip.compress(b"no tar" * 99)],
    ids=["cut", "checksum", "not gzipped", "empty", "zip", "no tar inside"],
)
def test_what_is_not_a_whole_tar_gz_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = build(tmp_path / "model.tar.gz", member("a", data=os.urandom(50_000)))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(archive.Refused):
        unpack(path)


def test_more_bytes_than_agreed_are_not_unpacked(tmp_path: Path) -> None:
    path = build(tmp_path / "model.tar.gz", member("a", data=bytes(600)), member("b", data=bytes(600)))
    with pytest.raises(archive.TooLarge):
        unpack(path, max_bytes=1000)


def test_a_bomb_outside_the_members_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    path = build(tmp_path / "model.tar.gz", member("a"))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(5_000_000)))
    with pytest.raises(archive.TooLarge):
        unpack(path, max_bytes=1000)


def test_more_members_than_agreed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    path = build(tmp_path / "model.tar.gz", *(member(f"f{n}") for n in range(4)))
    with pytest.raises(archive.Refused, match="more than 3 members"):
        unpack(path)


def test_a_cancelled_unpacking_ends(tmp_path: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    path = build(tmp_path / "model.tar.gz", member("a"))
    with path.open("rb") as packed, pytest.raises(archive.Cancelled):
        archive.unpack(packed, tmp_path / "out", 1000, cancelled)


def test_a_model_arrives_readable_and_without_set_uid(tmp_path: Path) -> None:
    path = build(
        tmp_path / "model.tar.gz",
        member("./", tarfile.DIRTYPE, mode=0o700),
        member("./code/inference.py", data=b"x = 1\n", mode=0o600),
        member("./run", data=b"#!", mode=0o6700, uid=4711),
        member("./closed", tarfile.DIRTYPE, mode=0o000),
        member("./closed/in", data=b"y"),
    )
    out = unpack(path)
    modes = {str(p.relative_to(out)): p.stat().st_mode & 0o7777 for p in out.rglob("*")}
    assert modes == {
        "code": 0o755,
        "code/inference.py": 0o644,
        "run": 0o755,
        "closed": 0o755,
        "closed/in": 0o644,
    }
    assert (out / "code/inference.py").read_text() == "x = 1\n"
    assert (out / "run").stat().st_uid == os.getuid()


def test_a_link_to_a_file_of_the_archive_works(tmp_path: Path) -> None:
    path = build(
        tmp_path / "model.tar.gz",
        member("snapshots/1/weights", LINK, linkname="../../blobs/abc"),
        member("blobs/abc", data=b"w"),
    )
    assert (unpack(path) / "snapshots/1/weights").read_bytes() == b"w"
