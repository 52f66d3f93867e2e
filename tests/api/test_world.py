"""What CreateModel checks at once beyond its request, in the service's words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clary.api.app import operations
from clary.api.world import World
from clary.core.containers import Repository
from clary.core.resources import Partition
from clary.errors import LaunchFailure, Transient, ValidationException
from clary.objecterrors import AccessRefused, ObjectNotFound, ObjectRefused
from clary.objects import Objects
from tests.stores import new_store

from .conftest import ACCOUNT, Api, Clock

ROLE = "arn:aws:iam::123456789012:role/clary"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:login"
S3 = {"S3DataType": "S3Object", "CompressionType": "None"}


class Bucket:
    """Has some objects; those below `secret` may not be read, and `down` answers nothing."""

    canonical = Objects("https://minio.local:9000", "", "", "us-east-1", ()).canonical

    def __init__(self, *urls: str, **manifests: bytes) -> None:
        self.urls = (*urls, *(f"s3://lists/{name}" for name in manifests))
        self.manifests = manifests

    async def head(self, url: str) -> object:
        if url.startswith(("s3://secret/", "file://")):
            raise AccessRefused(f"{url}: no") if url.startswith("s3") else ObjectRefused(f"{url}: no")
        if url.startswith("s3://down/"):
            raise Transient(f"{url}: nobody answers")
        if url not in self.urls:
            raise ObjectNotFound(url)
        return url

    async def any_below(self, url: str) -> bool:
        return bool(await self.below(url))

    async def below(self, url: str) -> list[tuple[str, str, object]]:
        return [(each, each.removeprefix(url), each) for each in self.urls if each.startswith(url)]

    async def read(self, url: str, limit: int) -> bytes:
        return self.manifests[url.removeprefix("s3://lists/")]


async def knows(image: str, repository: Repository) -> bool | None:
    """A registry with the image `known`, and one that shows `private` to a function's login only, and is else shut."""
    if image.startswith("shut/"):
        return None
    if image == "strange":
        raise LaunchFailure("image", "There is no entry for it.")
    return image == "known" or (image == "private" and repository == Repository("Vpc", FUNCTION))


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """CreateModel that looks: there are the image `known` and two objects."""
    clock = Clock()
    store = await new_store(tmp_path, clock)
    here = Api(store, clock)
    bucket = Bucket("s3://b/model.tar.gz", "s3://b/models/one.tar.gz", "https://s3.amazonaws.com/b/model.tar.gz")
    world = World(bucket, knows, "us-east-1")
    here.handlers = operations(store, Partition(ACCOUNT, "us-east-1"), here.notified.append, world)
    yield here
    await store.close()


async def test_a_role_that_may_not_read_the_artifact_is_said_so(api: Api) -> None:
    bucket = Bucket("s3://b/model.tar.gz")
    world = World(bucket, knows, "us-east-1", lambda role, url, is_prefix: role != "blind")
    await world.check([{"Image": "known", "ModelDataUrl": "s3://b/model.tar.gz"}], "seeing")
    with pytest.raises(ValidationException, match=r"Could not access model data at s3://b/model\.tar\.gz\. .*blind"):
        await world.check([{"Image": "known", "ModelDataUrl": "s3://b/model.tar.gz"}], "blind")


def source(url: str, **members: str) -> dict[str, Any]:
    return {"S3DataSource": S3 | {"S3Uri": url} | members}


@pytest.mark.parametrize(
    "container",
    [
        {},
        {"ModelDataUrl": "s3://b/model.tar.gz"},
        {"ModelDataUrl": "https://s3.amazonaws.com/b/model.tar.gz"},
        {"ModelDataUrl": "s3://b/models/", "Mode": "MultiModel"},
        {"ModelDataSource": source("s3://b/model.tar.gz")},
        {"ModelDataSource": source("s3://b/models/", S3DataType="S3Prefix")},
    ],
    ids=str,
)
async def test_what_is_there_is_taken(api: Api, container: dict[str, Any]) -> None:
    await api.model(PrimaryContainer={"Image": "known"} | container)


@pytest.mark.parametrize(
    ("container", "url"),
    [
        ({"ModelDataUrl": "s3://b/none.tar.gz"}, "s3://b/none.tar.gz"),
        ({"ModelDataUrl": "s3://b/nothing/", "Mode": "MultiModel"}, "s3://b/nothing/"),
        ({"ModelDataSource": source("s3://b/none")}, "s3://b/none"),
        ({"ModelDataSource": source("s3://b/none/", S3DataType="S3Prefix")}, "s3://b/none/"),
        (
            {"ModelDataSource": source("s3://b/models/", S3DataType="S3Prefix", ManifestS3Uri="s3://b/manifest")},
            "s3://b/manifest",
        ),
        ({"AdditionalModelDataSources": [{"ChannelName": "c"} | source("s3://b/none")]}, "s3://b/none"),
    ],
    ids=str,
)
async def test_an_absent_artifact_is_named(api: Api, container: dict[str, Any], url: str) -> None:
    refusal = await api.refusal("CreateModel", ModelName="m", PrimaryContainer={"Image": "known"} | container)
    assert refusal == f"Could not find model data at {url}."
    assert await api("ListModels") == {"Models": []}


@pytest.mark.parametrize("url", ["s3://secret/model.tar.gz", "https://s3.eu-west-1.amazonaws.com/b/model.tar.gz"])
async def test_an_artifact_that_is_out_of_reach_is_explained_at_length(api: Api, url: str) -> None:
    container = {"Image": "known", "ModelDataUrl": url}
    refusal = await api.refusal("CreateModel", ModelName="m", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    assert refusal == (
        f'Could not access model data at {url}. Please ensure that the role "{ROLE}" exists and that its trust '
        'relationship policy allows the action "sts:AssumeRole" for the service principal "sagemaker.amazonaws.com". '
        'Also ensure that the role has "s3:GetObject" permissions and that the object is located in us-east-1. If '
        "your Model uses multiple models or uncompressed models, please ensure that the role has "
        '"s3:ListBucket" permission.'
    )


async def test_a_file_that_is_out_of_reach_says_why(api: Api) -> None:
    container = {"Image": "known", "ModelDataUrl": "file:///etc/model.tar.gz"}
    refusal = await api.refusal("CreateModel", ModelName="m", PrimaryContainer=container)
    assert refusal == "Could not access model data at file:///etc/model.tar.gz: no."


async def test_a_store_that_does_not_answer_is_no_mistake_of_the_caller(api: Api) -> None:
    with pytest.raises(Transient):
        await api.model(PrimaryContainer={"Image": "known", "ModelDataUrl": "s3://down/model.tar.gz"})


async def test_an_unknown_image_is_named_after_the_data(api: Api) -> None:
    containers = [{"Image": "other:1"}, {"Image": "known", "ModelDataUrl": "s3://b/none.tar.gz"}]
    refusal = await api.refusal("CreateModel", ModelName="m", Containers=containers)
    assert refusal == "Could not find model data at s3://b/none.tar.gz."
    refusal = await api.refusal("CreateModel", ModelName="m", Containers=containers[:1])
    assert refusal == "Requested image other:1 not found."


async def test_what_an_engine_knows_of_an_image_that_it_cannot_have_is_said(api: Api) -> None:
    refusal = await api.refusal("CreateModel", ModelName="m", PrimaryContainer={"Image": "strange"})
    assert refusal == "Requested image strange not found. There is no entry for it."


async def test_an_image_of_which_nobody_can_tell_is_taken_on_trust(api: Api) -> None:
    await api.model(PrimaryContainer={"Image": "shut/model:1"})


async def test_a_private_image_is_looked_for_with_its_own_login(api: Api) -> None:
    auth = {"RepositoryAccessMode": "Vpc", "RepositoryAuthConfig": {"RepositoryCredentialsProviderArn": FUNCTION}}
    vpc = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    await api.model(PrimaryContainer={"Image": "private", "ImageConfig": auth}, VpcConfig=vpc)
    refusal = await api.refusal("CreateModel", ModelName="m2", PrimaryContainer={"Image": "private"})
    assert refusal == "Requested image private not found."


SPELLINGS = [
    *("s3://b//model.tar.gz", "s3://b/../model.tar.gz", "s3://b/a/../model.tar.gz", "s3://b/./model.tar.gz"),
    *(
        "s3://b/a\0.tar.gz",
        "https://[/model.tar.gz",
        "https://[::1/model.tar.gz",
        "https://s3.amazonaws.com/b/../m.tar.gz",
    ),
    *("https://b1.s3.amazonaws.com/m.tar.gz?versionId=1.tar.gz", "https://s3.amazonaws.com:99999/b/m.tar.gz"),
    "https://minio.local:9000/b//model.tar.gz",
]


@pytest.mark.parametrize("url", SPELLINGS)
async def test_a_url_that_policies_and_the_store_would_read_differently_is_refused(api: Api, url: str) -> None:
    folder = url + "/"
    for data in (
        {"ModelDataUrl": url},
        {"ModelDataUrl": folder, "Mode": "MultiModel"},
        {"ModelDataSource": source(url)},
        {"ModelDataSource": source(folder, S3DataType="S3Prefix")},
        {"ModelDataSource": source("s3://b/models/", S3DataType="S3Prefix", ManifestS3Uri=url)},
    ):
        refusal = await api.refusal("CreateModel", ModelName="m", PrimaryContainer={"Image": "known"} | data)
        assert refusal.startswith(f"Could not access model data at {url}")
    assert await api("ListModels") == {"Models": []}


async def test_the_role_is_asked_about_the_spelling_that_the_store_gets() -> None:
    asked: list[tuple[str, bool]] = []
    bucket = Bucket("s3://b/m", "https://minio.local:9000/b/m", "https://s3.amazonaws.com/b/%6D")
    world = World(bucket, knows, "us-east-1", lambda role, url, is_prefix: asked.append((url, is_prefix)) is None)
    for url in bucket.urls:
        await world.check([{"ModelDataSource": source(url)}], "role")
    assert asked == [("s3://b/m", False)] * 3


CHOSEN = {"S3DataType": "S3Prefix", "ManifestS3Uri": "s3://lists/manifest"}


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (b"one.tar.gz\n", ""),
        (b'[{"prefix": "https://s3.amazonaws.com/b/"}, "models/one.tar.gz"]', ""),
        (b"", "s3://lists/manifest: the manifest names nothing"),
        (b"[]", "s3://lists/manifest: a manifest is CSV, or in JSON"),
        (b"[" * 100_000, "s3://lists/manifest: a manifest is CSV, or in JSON"),
        (b"\xff", "s3://lists/manifest: a manifest is text in UTF-8"),
        (b"none", "s3://lists/manifest names s3://b/models/none, which is not there below s3://b/models/"),
        (b"s3://b/model.tar.gz", "s3://lists/manifest names s3://b/model.tar.gz, which is not there below"),
        (b'[{"prefix": "s3://b//"}, "a"]', "s3://b//: no part of a key may be empty"),
    ],
)
async def test_a_manifest_must_choose_among_what_is_there(manifest: bytes, reason: str) -> None:
    bucket = Bucket("s3://b/model.tar.gz", "s3://b/models/one.tar.gz", manifest=manifest)
    world = World(bucket, knows, "us-east-1")
    containers = [{"ModelDataSource": source("s3://b/models/", **CHOSEN)}]
    if not reason:
        await world.check(containers, "role")
        return
    with pytest.raises(ValidationException) as refused:
        await world.check(containers, "role")
    assert refused.value.message.startswith(f"Could not access model data at {reason}")
