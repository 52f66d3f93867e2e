"""Model data that is not packed: which objects, under which names, and which names are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from clary.core.containers import ContainerSpec, ModelData
from clary.engines.artifacts import Artifacts
from clary.engines.pieces import Piece, download, find
from clary.errors import LaunchFailure, Transient
from clary.objecterrors import ObjectNotFound
from clary.objects import Count, ObjectHead, Objects

FOLDER = "s3://b/m/"
WHOLE = ModelData(FOLDER, "prefix")


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

    async def read(self, url: str, limit: int, etag: str = "") -> bytes:
        head = await self.head(url)
        head.require(url, etag)
        return head.etag.encode()

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
    found = await artifacts.get(WHOLE, "c1", quiet)
    assert tree(found.path) == bucket.objects
    assert await artifacts.get(WHOLE, "c2", quiet) == found
    assert len(bucket.downloads) == 3


async def test_an_object_becomes_a_file_under_the_end_of_its_key(bucket: Bucket, tmp_path: Path) -> None:
    found = await Artifacts(tmp_path, bucket, 10**9, 10**8).get(ModelData(f"{FOLDER}weights/1", "object"), "c1", quiet)
    assert tree(found.path) == {"1": "one"}


async def test_a_changed_object_makes_another_tree(bucket: Bucket, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, bucket, 10**9, 10**8)
    old = await artifacts.get(WHOLE, "c1", quiet)
    bucket.objects["weights/3"] = "three"
    new = await artifacts.get(WHOLE, "c2", quiet)
    assert tree(new.path).keys() - tree(old.path).keys() == {"weights/3"}


async def test_what_changes_during_the_download_is_tried_again(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def replaced(url: str, path: Path, progress: Count) -> None:
        path.write_text("half old")
        bucket.objects["config.json"] = "{ }"

    monkeypatch.setattr(bucket, "download", replaced)
    with pytest.raises(Transient, match="replaced"):
        await Artifacts(tmp_path, bucket, 10**9, 10**8).get(WHOLE, "c1", quiet)
    assert not list((tmp_path / "incoming").iterdir())


async def test_the_pieces_together_have_a_limit(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(LaunchFailure, match="--max-artifact"):
        await Artifacts(tmp_path, bucket, 10**9, 7).get(WHOLE, "c1", quiet)
    assert bucket.downloads == []


async def test_progress_counts_all_pieces_together(bucket: Bucket, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    pieces = await find(bucket, ModelData(FOLDER, "prefix"))
    await download(bucket, pieces, tmp_path / "model", lambda done, total: told.append((done, total)))
    assert told == [(2, 8), (5, 8), (8, 8)]


async def test_an_empty_prefix_and_a_missing_object_are_named() -> None:
    with pytest.raises(LaunchFailure, match="s3://b/m/: there is no object"):
        await find(Bucket(), ModelData(FOLDER, "prefix"))
    with pytest.raises(LaunchFailure, match="s3://b/m/none: there is no such object"):
        await find(Bucket(), ModelData(f"{FOLDER}none", "object"))


@pytest.mark.parametrize("path", ["", "a//b", "../x", "a/../x", ".", "a\0b", "é" * 128])
async def test_keys_that_cannot_be_files_are_refused(path: str) -> None:
    with pytest.raises(LaunchFailure, match="cannot be the name of a file") as refused:
        await find(Bucket(**{path: "x"}), ModelData(FOLDER, "prefix"))
    assert refused.value.step == "download"


async def test_a_file_that_is_a_directory_too_is_refused() -> None:
    with pytest.raises(LaunchFailure, match="'weights' would be a file and a directory"):
        await find(Bucket(**{"weights": "", "weights/a/b": "x"}), ModelData(FOLDER, "prefix"))


async def test_names_of_the_longest_length_are_fine() -> None:
    assert await find(Bucket(**{"a" * 255: "x"}), ModelData(FOLDER, "prefix")) == [
        Piece(FOLDER + "a" * 255, "a" * 255, ObjectHead(1, "x"))
    ]


MANIFEST = f"{FOLDER}lists/wanted"
CHOSEN = ModelData(FOLDER, "prefix", manifest=MANIFEST)


@pytest.mark.parametrize(
    "manifest",
    [
        json.dumps([{"prefix": FOLDER}, "weights/1", "config.json"]),
        json.dumps([{"prefix": f"{FOLDER}weights/"}, "1", "1"]),
        "weights/1,3\n\nconfig.json,2\n",
        f'{FOLDER}weights/1\n"{FOLDER}config.json"\n',
    ],
)
async def test_a_manifest_chooses_among_the_objects_below_the_prefix(
    bucket: Bucket, tmp_path: Path, manifest: str
) -> None:
    bucket.objects["lists/wanted"] = manifest
    found = await Artifacts(tmp_path, bucket, 10**9, 10**8).get(CHOSEN, "c1", quiet)
    wanted = {"weights/1", "config.json"} if "config" in manifest else {"weights/1"}
    assert tree(found.path) == {name: bucket.objects[name] for name in wanted}


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (json.dumps([{"prefix": FOLDER}, "none"]), f"names {FOLDER}none, which is not there below {FOLDER}"),
        (json.dumps([{"prefix": "s3://secret/"}, "k"]), "names s3://secret/k, which is not there below"),
        ("s3://secret/k\n", "names s3://secret/k, which is not there below"),
        ("[", "a manifest is CSV, or in JSON"),
        (json.dumps(["k"]), "a manifest is CSV, or in JSON"),
        (json.dumps([{"prefix": FOLDER}, 1]), "a manifest is CSV, or in JSON"),
        ("[]", "a manifest is CSV, or in JSON"),
        (json.dumps([{"prefix": 1}, "k"]), "a manifest is CSV, or in JSON"),
        ("x" * 200_000, "a manifest is CSV, or in JSON"),
        ("", "the manifest names nothing"),
        (json.dumps([{"prefix": FOLDER}]), "the manifest names nothing"),
    ],
)
async def test_a_manifest_that_names_something_else_is_refused(bucket: Bucket, manifest: str, reason: str) -> None:
    bucket.objects["lists/wanted"] = manifest
    with pytest.raises(LaunchFailure) as refused:
        await find(bucket, CHOSEN)
    assert refused.value.step == "download"
    assert reason in str(refused.value)


async def test_another_manifest_makes_another_tree(bucket: Bucket, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, bucket, 10**9, 10**8)
    whole = await artifacts.get(WHOLE, "c1", quiet)
    bucket.objects["lists/wanted"] = "config.json"
    part = await artifacts.get(CHOSEN, "c2", quiet)
    assert tree(part.path) == {"config.json": "{}"}
    assert tree(whole.path).keys() > tree(part.path).keys()


async def test_data_that_the_role_may_no_longer_read_is_not_given_even_from_the_cache(
    bucket: Bucket, tmp_path: Path
) -> None:
    refusals: dict[str, str] = {}
    artifacts = Artifacts(tmp_path, bucket, 10**9, 10**8, lambda role, action, url: refusals.get(role))
    spec = ContainerSpec("c1", "e", "v", "i-1", "image", model_data=(ModelData(FOLDER, "prefix"),), role_arn="arn:r")
    assert tree((await artifacts.collect(spec, quiet))["model"].path) == bucket.objects
    refusals["arn:r"] = "The role arn:r may not read it"
    with pytest.raises(LaunchFailure, match="The role arn:r may not read it") as refused:
        await artifacts.collect(spec, quiet)
    assert refused.value.step == "download"


async def test_a_role_is_asked_about_each_object_and_about_nothing_else(bucket: Bucket, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    shut: set[str] = set()

    def refusal(role: str, action: str, url: str) -> str | None:
        asked.append((action, url))
        return f"no {url}" if url in shut else None

    artifacts = Artifacts(tmp_path, bucket, 10**9, 10**8, refusal)
    bucket.objects["lists/wanted"] = "config.json"
    await artifacts.get(CHOSEN, "c1", quiet, "arn:r")
    assert asked == [
        ("s3:ListBucket", FOLDER),
        ("s3:GetObject", MANIFEST),
        ("s3:GetObject", f"{FOLDER}config.json"),
    ]
    shut.add(f"{FOLDER}weights/1")
    assert tree((await artifacts.get(CHOSEN, "c1", quiet, "arn:r")).path) == {"config.json": "{}"}
    bucket.downloads.clear()
    with pytest.raises(LaunchFailure, match=f"no {FOLDER}weights/1"):
        await artifacts.get(WHOLE, "c2", quiet, "arn:r")
    assert bucket.downloads == []


async def test_a_role_is_asked_about_the_one_spelling_of_an_object(bucket: Bucket, tmp_path: Path) -> None:
    asked: list[str] = []
    artifacts = Artifacts(tmp_path, bucket, 10**9, 10**8, lambda role, action, url: asked.append(url))
    await artifacts.get(ModelData("https://s3.amazonaws.com/b/m/config%2Ejson", "object"), "c1", quiet, "arn:r")
    assert set(asked) == {f"{FOLDER}config.json"}
    with pytest.raises(LaunchFailure, match="no part of a key"):
        await artifacts.get(ModelData("s3://b//m/config.json", "object"), "c1", quiet, "arn:r")


async def test_another_version_than_the_etag_says_is_refused(bucket: Bucket) -> None:
    bucket.objects["lists/wanted"] = "config.json"
    one = ModelData(f"{FOLDER}config.json", "object", etag='"{}"')
    assert await find(bucket, one) and await find(bucket, CHOSEN._replace(manifest_etag="config.json"))
    for data in (one._replace(etag="other"), CHOSEN._replace(manifest_etag="other")):
        with pytest.raises(LaunchFailure, match="its ETag is"):
            await find(bucket, data)
