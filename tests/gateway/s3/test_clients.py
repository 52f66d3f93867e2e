"""The bundled S3 as other clients meet it: obstore, the aws command line and s3fs, each as its users run it.

s3fs pins an older botocore than Clary needs, so it gets an environment of its own, which uv builds once.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from tests.gateway.s3.server import KEY, REGION, SECRET, serving

MIB = 1024 * 1024
REPOSITORY = Path(__file__).parents[3]
S3FS = "s3fs==2026.9.0"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "s3" / "data").mkdir(parents=True)
    with serving(tmp_path / "s3") as address:
        yield address


@pytest.fixture
def environment(url: str) -> Mapping[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return own | {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
    }


def test_obstore(url: str) -> None:
    store = S3Store(
        "data",
        endpoint=url,
        access_key_id=KEY,
        secret_access_key=SECRET,
        region=REGION,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    data = os.urandom(12 * MIB)
    obstore.put(store, "dir/big file+(1)", data, chunk_size=5 * MIB)
    obstore.put(store, "dir/small", b"hello", attributes={"Content-Type": "text/plain", "note": "n"})
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "dir/small", b"other", mode="create")
    assert obstore.get(store, "dir/big file+(1)").bytes().to_bytes() == data
    assert obstore.get_range(store, "dir/small", start=1, end=3).to_bytes() == b"el"
    assert obstore.get(store, "dir/small").attributes == {"Content-Type": "text/plain", "note": "n"}
    assert [each["path"] for each in obstore.list(store, "dir").collect()] == ["dir/big file+(1)", "dir/small"]
    assert obstore.list_with_delimiter(store)["common_prefixes"] == ["dir"]
    obstore.copy(store, "dir/small", "a=b&c/ü")
    assert obstore.head(store, "a=b&c/ü")["size"] == 5
    obstore.rename(store, "a=b&c/ü", "moved")
    obstore.delete(store, ["dir/big file+(1)", "dir/small", "moved"])
    assert obstore.list(store).collect() == []


def test_the_aws_command_line(environment: Mapping[str, str], tmp_path: Path) -> None:
    def aws(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("aws")), *arguments]
        done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = tmp_path / "up"
    (folder / "sub").mkdir(parents=True)
    (folder / "big").write_bytes(os.urandom(9 * MIB))
    (folder / "sub" / "a b.txt").write_text("hello")
    aws("s3", "mb", "s3://made")
    aws("s3", "sync", str(folder), "s3://made/p", "--no-progress")
    assert aws("s3", "ls", "s3://made", "--recursive").split() == [
        *(word for line in aws("s3", "ls", "s3://made/p/", "--recursive").splitlines() for word in line.split())
    ]
    assert aws("s3", "ls", "s3://made/p/").split()[:2] == ["PRE", "sub/"]
    assert aws("s3", "sync", str(folder), "s3://made/p", "--no-progress") == ""
    aws("s3", "cp", "s3://made/p", str(tmp_path / "down"), "--recursive", "--no-progress")
    for path in ("big", "sub/a b.txt"):
        assert (tmp_path / "down" / path).read_bytes() == (folder / path).read_bytes()
    aws("s3", "mv", "s3://made/p/big", "s3://data/big", "--no-progress")
    aws("s3", "rm", "s3://made", "--recursive")
    aws("s3", "rb", "s3://made")
    assert aws("s3", "ls").split()[2:] == ["data"]


S3FS_SESSION = """
import os, s3fs
fs = s3fs.S3FileSystem()
data = os.urandom(12 * 2**20)
with fs.open("data/d/big", "wb", block_size=5 * 2**20) as file:
    file.write(data)
fs.pipe("data/d/small", b"hello world")
assert fs.cat("data/d/big") == data
assert fs.cat_file("data/d/small", start=2, end=5) == b"llo"
with fs.open("data/d/small") as file:
    file.seek(6)
    assert file.read() == b"world"
assert sorted(fs.ls("data/d")) == ["data/d/big", "data/d/small"], fs.ls("data/d")
assert fs.isdir("data/d") and fs.isfile("data/d/small") and not fs.exists("data/x")
fs.copy("data/d/small", "data/e/copy of")
fs.copy("data/d/big", "data/e/big")
assert fs.info("data/e/big")["size"] == len(data)
fs.put_tags("data/d/small", {"a": "b"})
assert fs.get_tags("data/d/small") == {"a": "b"}
fs.touch("data/empty")
assert fs.find("data") == ["data/d/big", "data/d/small", "data/e/big", "data/e/copy of", "data/empty"], fs.find("data")
fs.mv("data/empty", "data/moved")
fs.mkdir("other")
fs.rm("data/", recursive=True)
fs.rmdir("other")
"""


def s3fs_python() -> Path:
    """Give the Python of an environment with s3fs in it."""
    folder = REPOSITORY / ".venvs" / f"s3fs-{hashlib.sha256(S3FS.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        installed = subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", str(python), S3FS], capture_output=True, text=True
        )
        if installed.returncode:
            pytest.skip(f"s3fs cannot be installed here: {installed.stderr.strip()[-200:]}")
        (folder / "ready").touch()
    return python


def test_s3fs(environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [str(s3fs_python()), "-c", S3FS_SESSION], env=dict(environment), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
