"""Images against a real Docker and real registries: pulled once, pinned, and each refusal in words of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from clary.core.containers import ContainerSpec, Progress, Repository
from clary.engines.docker.images import Images, ResolvedImage
from clary.engines.docker.logins import DockerLogins
from clary.engines.docker.provider import CredentialsProvider
from clary.engines.docker.registries import Registries
from clary.errors import LaunchFailure, Transient

from .registry import (
    MADE,
    PASSWORD,
    SOCKET,
    USER,
    Broken,
    FakeLambda,
    Registry,
    dying_docker,
    give,
    layer,
    needs_registry,
    outside_address,
    running,
    trickling,
    unique,
)

pytestmark = needs_registry

ARN = "arn:aws:lambda:us-east-1:123456789012:function:registry-login"
PRIVATE = Repository("Vpc", ARN)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("open")) as here:
        yield here


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("private"), password=PASSWORD) as here:
        yield here


@pytest.fixture(scope="module")
def functions() -> Iterator[FakeLambda]:
    with FakeLambda() as here:
        yield here


@pytest.fixture
async def docker() -> AsyncIterator[aiodocker.Docker]:
    """A client; what the test leaves of images with our names is removed."""
    async with aiodocker.Docker(f"unix://{SOCKET}") as client:
        yield client
        for image in await client.images.list():
            names = [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]
            for name in names:
                if any(made in name for made in MADE):
                    await forget(client, name)


async def forget(docker: aiodocker.Docker, name: str) -> None:
    try:
        await docker.images.delete(name, force=True)
    except aiodocker.DockerError as error:
        assert error.status == 404, error


@dataclass
class Here:
    """Images of a Clary with some settings."""

    docker: aiodocker.Docker
    folder: Path
    functions: str = ""

    def images(self, **table: Any) -> Images:
        registries = Registries(table, DockerLogins(self.folder))
        return Images(self.docker, registries, CredentialsProvider(self.functions))

    async def resolve(self, image: str, images: Images | None = None, **members: Any) -> ResolvedImage:
        return await (images or self.images()).resolve(spec(image, **members), lambda _: None)


@pytest.fixture
def here(docker: aiodocker.Docker, tmp_path: Path, functions: FakeLambda, monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setattr("clary.engines.docker.images._LOOK_PATIENCE", 60.0)  # the machine may be busy
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "lambda's secret")
    return Here(docker, tmp_path, functions.url)


def spec(image: str, **members: Any) -> ContainerSpec:
    return ContainerSpec("c-1", "endpoint", "AllTraffic", "i-0123456789abcdef0", image, **members)


async def refusal(resolving: Any, kind: type[LaunchFailure] | type[Transient] = LaunchFailure) -> str:
    with pytest.raises(kind) as raised:
        await resolving
    if isinstance(raised.value, LaunchFailure):
        assert raised.value.step == "image"
    return raised.value.message


async def make_locally(docker: aiodocker.Docker, name: str) -> str:
    """Make an image that no registry has, and give its id."""
    async with docker._query(
        "images/create", "POST", data=layer(), params={"fromSrc": "-", "repo": name, "tag": "1"}
    ) as answer:
        await answer.read()
    return str((await docker.images.inspect(f"{name}:1"))["Id"])


# -- where it comes from ----------------------------------------------------------------------------------------------


async def test_a_missing_image_is_pulled_and_known_by_its_digest(here: Here, registry: Registry) -> None:
    path = unique("pulled")
    pushed = registry.put(path, label="me")
    found = await here.resolve(f"{registry.host}/{path}:1")
    assert found.resolved == f"{registry.host}/{path}@{pushed}"
    assert found.labels == {"made-for": "me"}
    assert (await here.docker.images.inspect(found.reference))["Id"] == found.reference


async def test_an_image_that_is_here_is_used_as_it_is(here: Here, registry: Registry) -> None:
    path = unique("present")
    before = registry.put(path)
    await here.resolve(f"{registry.host}/{path}:1")
    registry.put(path)  # the tag moves
    assert (await here.resolve(f"{registry.host}/{path}:1")).resolved.endswith(before)


async def test_an_image_that_no_registry_knows_is_named_by_its_id(here: Here) -> None:
    name = unique("local")
    id = await make_locally(here.docker, name)
    found = await here.resolve(f"{name}:1")
    assert found == ResolvedImage(id, f"{name}@{id}", {})
    again = await here.resolve(f"{name}:1", resolved_image=found.resolved)
    assert again == found


async def test_a_pinned_image_stays_what_it_was_though_its_tag_moves(here: Here, registry: Registry) -> None:
    path = unique("pinned")
    image = f"{registry.host}/{path}:1"
    registry.put(path)
    first = await here.resolve(image)
    registry.put(path)
    await forget(here.docker, image)
    assert await here.resolve(image, resolved_image=first.resolved) == first
    await forget(here.docker, first.reference)
    assert await here.resolve(image, resolved_image=first.resolved) == first, "pulled again by its digest"
    assert (await here.resolve(image)).resolved != first.resolved


async def test_the_pin_of_another_engine_is_none(here: Here) -> None:
    name = unique("elsewhere")
    id = await make_locally(here.docker, name)
    found = await here.resolve(f"{name}:1", resolved_image=f"clary-process/{name}@sha256:{'0' * 64}")
    assert found.reference == id


async def test_a_name_with_a_digest_gets_that_image(here: Here, registry: Registry) -> None:
    path = unique("digest")
    pushed = registry.put(path)
    registry.put(path)
    found = await here.resolve(f"{registry.host}/{path}@{pushed}")
    assert found.resolved == f"{registry.host}/{path}@{pushed}"


async def test_a_rewritten_name_comes_from_another_place_and_keeps_its_own(here: Here, registry: Registry) -> None:
    path = unique("rewritten")
    pushed = registry.put(f"mirror/{path}")
    ecr = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
    images = here.images(**{"*.dkr.ecr.*.amazonaws.com": f"{registry.host}/mirror"})
    found = await here.resolve(f"{ecr}/{path}:1", images)
    assert found.resolved == f"{ecr}/{path}@{pushed}"
    assert await here.resolve(f"{ecr}/{path}:1", images, resolved_image=found.resolved) == found


async def test_a_mirror_is_asked_first_and_the_original_after_it(
    here: Here, registry: Registry, private: Registry
) -> None:
    path, other = unique("mirrored"), unique("original")
    registry.put(f"m/{path}")
    private.put(other)
    (here.folder / "password").write_text(PASSWORD + "\n")
    login = {"username": USER, "password_file": str(here.folder / "password")}
    images = here.images(**{private.host: {"mirror": f"{registry.host}/m", **login}})
    await here.resolve(f"{private.host}/{path}:1", images)
    await here.resolve(f"{private.host}/{other}:1", images)
    names = {name for each in await here.docker.images.list() for name in each["RepoTags"] or ()}
    assert {f"{registry.host}/m/{path}:1", f"{private.host}/{other}:1"} <= names


# -- how it is pulled -------------------------------------------------------------------------------------------------


async def test_those_who_want_the_same_image_wait_for_one_pull(here: Here, registry: Registry) -> None:
    path = unique("shared")
    registry.put(path, layers=[layer(3_000_000)])
    images, told = here.images(), [[], []]  # type: ignore[var-annotated]
    pulls: list[str] = []
    pull = images._pull_from

    async def counted(*arguments: Any) -> None:
        pulls.append(path)
        await pull(*arguments)

    images._pull_from = counted  # type: ignore[method-assign]
    found = await asyncio.gather(*(images.resolve(spec(f"{registry.host}/{path}:1"), each.append) for each in told))
    assert found[0] == found[1]
    assert pulls == [path]
    assert told[0] == told[1]
    assert told[0][0] == "pull"
    assert any(text.endswith("of 3 MB") for text in told[0]), told[0]


async def test_a_cancelled_pull_ends_in_docker_too(here: Here) -> None:
    async with trickling() as (host, broken_off):
        images = here.images()
        begun = asyncio.Event()
        image = f"{host}/{unique('trickles')}:1"
        launches = [asyncio.create_task(images.resolve(spec(image), heard(begun))) for _ in range(2)]
        async with asyncio.timeout(300):
            await begun.wait()
            launches[0].cancel()
            await asyncio.wait({launches[0]})
            assert not broken_off.is_set(), "somebody else still waits"
            launches[1].cancel()
            await asyncio.wait({launches[1]})
            await broken_off.wait()
        assert images._resolving == {}


def heard(begun: asyncio.Event) -> Progress:
    return lambda text: begun.set() if text.endswith("of 100 MB") else None


# -- what can go wrong ------------------------------------------------------------------------------------------------


async def test_a_missing_image_says_where_it_is_missing(here: Here, registry: Registry) -> None:
    path = unique("missing")
    text = await refusal(here.resolve(f"{registry.host}/{path}:1"))
    assert text == f"The registry {registry.host} has no {path}:1. Push it there, or correct the model's Image."
    nowhere = f"sha256:{'0' * 64}"
    text = await refusal(here.resolve(f"{registry.host}/{path}@{nowhere}"))
    assert text.startswith(f"The registry {registry.host} has no {path}@{nowhere}. A digest stands for")


async def test_an_unreachable_registry_says_so(here: Here, deaf_port: int) -> None:
    host = f"127.0.0.1:{deaf_port}"
    text = await refusal(here.resolve(f"{host}/model:1"))
    assert text.startswith(f"The registry {host} cannot be reached: ")
    assert "connection refused" in text
    assert text.endswith("[registries] in the settings file can lead to another place.")
    text = await refusal(here.resolve("registry.invalid/model:1"))
    assert "registry.invalid cannot be reached" in text


async def test_a_login_that_is_asked_for_says_how_to_give_one(here: Here, private: Registry) -> None:
    path = unique("login")
    private.put(path)
    text = await refusal(here.resolve(f"{private.host}/{path}:1"))
    assert f"refused {private.host}/{path}:1 to somebody without a login. Run docker login {private.host}" in text


@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
async def test_the_login_of_the_settings_counts(here: Here, private: Registry, password: str) -> None:
    path = unique("settings")
    private.put(path)
    (here.folder / "password").write_text(password)
    images = here.images(**{private.host: {"username": USER, "password_file": str(here.folder / "password")}})
    if password == PASSWORD:
        await here.resolve(f"{private.host}/{path}:1", images)
        return
    text = await refusal(here.resolve(f"{private.host}/{path}:1", images))
    assert text.startswith(
        f"The registry {private.host} refused the login for {private.host}/{path}:1 that [registries."
    )


async def test_an_authority_that_docker_does_not_know_is_named(here: Here, tmp_path: Path) -> None:
    address = outside_address()
    if address is None:
        pytest.skip("this machine has no address but loopback's, where Docker wants no TLS")
    with running(tmp_path / "tls", address=address, tls=True) as registry:
        text = await refusal(here.resolve(f"{registry.host}/model:1"))
        assert text.startswith(f"The certificate of the registry {registry.host} is not one that Docker trusts: ")
        assert f"/etc/docker/certs.d/{registry.host}/ca.crt" in text


async def test_a_registry_without_tls_is_named(here: Here, tmp_path: Path) -> None:
    address = outside_address()
    if address is None:
        pytest.skip("this machine has no address but loopback's, where Docker wants no TLS")
    with running(tmp_path / "plain", address=address) as registry:
        text = await refusal(here.resolve(f"{registry.host}/model:1"))
        assert text.startswith(f"The registry {registry.host} speaks HTTP without TLS")
        assert "insecure-registries" in text


async def test_an_image_for_another_architecture_is_refused(here: Here, registry: Registry) -> None:
    single, several = unique("alien"), unique("aliens")
    registry.put(single, architecture="s390x")
    text = await refusal(here.resolve(f"{registry.host}/{single}:1"))
    assert "is for the architecture linux/s390x, and this machine is linux/" in text
    registry.put_list(several, "1", "s390x")
    text = await refusal(here.resolve(f"{registry.host}/{several}:1"))
    assert text.startswith(f"There is no {registry.host}/{several}:1 for the architecture of this machine: ")


async def test_a_name_that_is_none_is_refused_before_docker_is_asked(here: Here) -> None:
    assert "Team/Model is not the name of an image" in await refusal(here.resolve("Team/Model"))


async def test_a_registry_that_is_down_is_tried_again(here: Here) -> None:
    with Broken(503) as broken:
        text = await refusal(here.resolve(f"{broken.host}/model:1"), Transient)
        assert text.startswith(f"The registry {broken.host} cannot serve {broken.host}/model:1 now: ")


async def test_a_docker_that_is_away_is_waited_for(here: Here, tmp_path: Path) -> None:
    async with aiodocker.Docker(f"unix://{tmp_path}/none.sock") as nobody:
        text = await refusal(replace(here, docker=nobody).resolve("model:1"), Transient)
        assert "Cannot connect to Docker" in text


async def test_a_docker_that_dies_in_the_middle_of_a_pull_is_waited_for(here: Here, tmp_path: Path) -> None:
    async with dying_docker(tmp_path / "docker.sock"), aiodocker.Docker(f"unix://{tmp_path}/docker.sock") as dying:
        text = await refusal(replace(here, docker=dying).resolve("model:1"), Transient)
        assert text.startswith("Docker broke off the pull of docker.io/library/model:1")


# -- logins by a function ---------------------------------------------------------------------------------------------


async def test_a_function_gives_the_login_and_rotation_counts_at_once(
    here: Here, private: Registry, functions: FakeLambda, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    path = unique("function")
    image = f"{private.host}/{path}:1"
    pushed = private.put(path)
    functions.answers["registry-login"] = give(USER, "before the rotation")
    text = await refusal(here.resolve(image, repository=PRIVATE))
    assert text.startswith(f"The registry {private.host} refused the login for {image} that {ARN} gave.")
    functions.answers["registry-login"] = give(USER, PASSWORD)
    found = await here.resolve(image, repository=PRIVATE)
    assert found.resolved == f"{private.host}/{path}@{pushed}"
    assert functions.asked[-1] == (ARN, b"{}")
    for secret in (PASSWORD, "before the rotation", "lambda's secret"):
        assert secret not in caplog.text + text
        assert not any(secret.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


async def test_an_image_with_a_function_is_asked_for_though_it_is_here_and_its_pin_is_not(
    here: Here, private: Registry, functions: FakeLambda
) -> None:
    path = unique("again")
    image = f"{private.host}/{path}:1"
    private.put(path)
    functions.answers["registry-login"] = give(USER, PASSWORD)
    found = await here.resolve(image, repository=PRIVATE)
    functions.answers["registry-login"] = give(USER, "withdrawn")
    assert "refused the login" in await refusal(here.resolve(image, repository=PRIVATE))
    asked = len(functions.asked)
    assert await here.resolve(image, repository=PRIVATE, resolved_image=found.resolved) == found
    assert len(functions.asked) == asked


async def test_a_mirror_is_not_shown_what_the_function_gave(
    here: Here, registry: Registry, private: Registry, functions: FakeLambda
) -> None:
    path = unique("unmirrored")
    registry.put(path)
    functions.answers["registry-login"] = give(USER, PASSWORD)
    images = here.images(**{private.host: {"mirror": registry.host}})
    text = await refusal(here.resolve(f"{private.host}/{path}:1", images, repository=PRIVATE))
    assert text.startswith(f"The registry {private.host} has no {path}:1.")


# -- what CreateModel asks --------------------------------------------------------------------------------------------


async def test_what_there_is_is_known_without_pulling_it(
    here: Here, registry: Registry, private: Registry, deaf_port: int
) -> None:
    images, path, local = here.images(), unique("known"), unique("known-here")
    registry.put(path)
    private.put(path)
    await make_locally(here.docker, local)
    open_to_all = Repository()
    assert await images.known("Team/Model", open_to_all) is False
    assert await images.known(f"{local}:1", open_to_all) is True
    assert await images.known(f"{registry.host}/{path}:1", open_to_all) is True
    assert await images.known(f"{registry.host}/{path}:2", open_to_all) is False
    assert await images.known(f"{private.host}/{path}:1", open_to_all) is None, "nobody without a login can tell"
    assert await images.known(f"127.0.0.1:{deaf_port}/{path}:1", open_to_all) is None
    with pytest.raises(aiodocker.DockerError):
        await here.docker.images.inspect(f"{registry.host}/{path}:1")


async def test_the_function_is_asked_when_the_model_is_created(
    here: Here, private: Registry, functions: FakeLambda
) -> None:
    path = unique("known-private")
    private.put(path)
    functions.answers["registry-login"] = give(USER, PASSWORD)
    assert await here.images().known(f"{private.host}/{path}:1", PRIVATE) is True
    assert await here.images().known(f"{private.host}/{path}:2", PRIVATE) is False
    functions.answers["registry-login"] = give(USER, "wrong")
    assert await here.images().known(f"{private.host}/{path}:1", PRIVATE) is None


async def test_a_registry_that_does_not_answer_does_not_keep_create_model(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clary.engines.docker.images._LOOK_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait in its queue
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        assert await here.images().known(f"{host}/model:1", Repository()) is None
