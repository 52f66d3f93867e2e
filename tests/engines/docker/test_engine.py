"""The Docker engine on a real Docker: what a container gets, and how it begins and ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clary.core.containers import Container, ModelData
from clary.engines.context import EngineContext
from clary.engines.docker import lost
from clary.engines.docker.engine import DockerEngine
from clary.errors import LaunchFailure
from clary.testing import ModelSpecimens, Specimens, engine_conformance, holds_models_conformance
from tests.containers import build, docker, needs_docker
from tests.engines.conftest import MakeSpec, pack
from tests.engines.docker.conftest import ask, end, exited, inspect, quiet, until

pytestmark = [needs_docker, pytest.mark.usefixtures("nothing_is_left")]

MakeContext = Callable[..., EngineContext]


async def test_it_keeps_the_promises_of_every_engine(make_context: MakeContext, make_spec: MakeSpec) -> None:
    async def create() -> DockerEngine:
        return DockerEngine(make_context())

    await engine_conformance(
        create,
        Specimens(
            serves=make_spec(),
            exits=make_spec(environment={"EXIT": "3"}),
            broken=make_spec(image="clary/no-such:image"),
        ),
    )


async def test_it_keeps_the_promises_of_those_that_hold_models(
    make_context: MakeContext, make_spec: MakeSpec, tmp_path: Path
) -> None:
    async def create() -> DockerEngine:
        return DockerEngine(make_context())

    async def read(container: Container, path: str) -> str | None:
        return (
            str(await ask(container, do="read", path=path)) if await ask(container, do="is_there", path=path) else None
        )

    models = tmp_path / "models"
    await holds_models_conformance(
        create,
        ModelSpecimens(
            container=make_spec(component="many"),
            model=ModelData(pack(models / "m.tar.gz", {"weights": "w" * 10})),
            file="weights",
            missing=ModelData((models / "none.tar.gz").as_uri()),
            read=read,
        ),
    )


async def test_a_container_gets_what_the_contract_says(engine: DockerEngine, make_spec: MakeSpec) -> None:
    container = await engine.launch(make_spec(environment={"MINE": "1", "SAGEMAKER_BIND_TO_PORT": "9"}), quiet)
    seen = await ask(container, do="describe")
    environment = seen["environment"]
    assert seen["argv"] == ["serve"]
    assert (seen["pid"], seen["privileges"]) == (1, "1")
    assert not seen["capabilities"] & 1 << 13, "it cannot write packets by itself (NET_RAW)"
    assert inspect(container.id)["HostConfig"]["PidsLimit"] == 16_384
    assert environment["MINE"] == "1"
    assert environment["SAGEMAKER_BIND_TO_PORT"] == "8080"
    assert environment["SAGEMAKER_SAFE_PORT_RANGE"] == "23000-23999"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert seen["shm"] == 64 * 1024 * 1024
    assert container.resolved_image.startswith("clary/test-server@sha256:")


async def test_nothing_of_our_own_environment_leaks(
    engine: DockerEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    container = await engine.launch(make_spec(), quiet)
    assert "hidden" not in str(await ask(container, do="describe"))


async def test_labels_hold_no_variable(engine: DockerEngine, make_spec: MakeSpec) -> None:
    spec = make_spec(environment={"TOKEN": "secret-of-the-model"})
    await engine.launch(spec, quiet)
    labels = inspect(spec.id)["Config"]["Labels"]
    assert "secret-of-the-model" not in str(labels)
    assert labels["clary.endpoint"] == "iris"


async def test_models_are_at_their_places_read_only_and_readable_by_everybody(
    engine: DockerEngine, make_spec: MakeSpec, server_image: str, tmp_path: Path
) -> None:
    data = (
        ModelData(pack(tmp_path / "models" / "m.tar.gz", {"weights/w.bin": "w" * 10})),
        ModelData(pack(tmp_path / "models" / "d.tar.gz", {"draft.bin": "d"}), channel="draft"),
    )
    image = build("clary/test-server:user", {}, "USER 1234")
    recipe = f"FROM {server_image}\nUSER 1234\n"
    docker("build", "-q", "-t", image, "-", given=recipe.encode())
    before = os.umask(0o077)
    try:
        container = await engine.launch(make_spec(model_data=data, image=image), quiet)
    finally:
        os.umask(before)
    assert (await ask(container, do="describe"))["user"] == 1234
    assert await ask(container, do="read", path="/opt/ml/model/weights/w.bin") == "w" * 10
    assert await ask(container, do="read", path="/opt/ml/additional-model-data-sources/draft/draft.bin") == "d"
    assert await ask(container, do="write", path="/opt/ml/model/x") == "Read-only file system"
    assert await ask(container, do="write", path="/tmp/x") == "written"


async def test_without_model_data_the_directory_is_there_and_empty(engine: DockerEngine, make_spec: MakeSpec) -> None:
    container = await engine.launch(make_spec(), quiet)
    assert await ask(container, do="files", path="/opt/ml/model") == []
    assert await ask(container, do="write", path="/opt/ml/model/x") == "Read-only file system"


async def test_an_image_without_an_entrypoint_runs_its_serve(engine: DockerEngine, make_spec: MakeSpec) -> None:
    image = build(
        "clary/test-serve:1", {"serve": "#!/bin/sh\necho started as $0; exec sleep 1000\n"}, "ENV PATH=/:/bin:/usr/bin"
    )
    spec = make_spec(image=image)
    await engine.launch(spec, quiet)

    async def started() -> bool:
        return await engine.logs(spec.id, 5) == ["started as /serve"]

    await until(started)


async def test_an_image_that_has_nothing_to_serve_with_is_a_failure_in_dockers_words(
    engine: DockerEngine, make_spec: MakeSpec
) -> None:
    image = build("clary/test-nothing:1", {}, 'CMD ["python3"]')
    with pytest.raises(LaunchFailure, match=r'exec: "serve": executable file not found') as caught:
        await engine.launch(make_spec(image=image), quiet)
    assert caught.value.step == "create"
    assert not await engine.observe()


async def test_a_user_that_the_image_does_not_have_and_a_variable_that_none_can_be_are_refusals(
    engine: DockerEngine, make_spec: MakeSpec
) -> None:
    image = build("clary/test-nobody:1", {}, "USER nobody2")
    with pytest.raises(LaunchFailure, match="unable to find user nobody2"):
        await engine.launch(make_spec(image=image), quiet)
    with pytest.raises(LaunchFailure, match="can't contain null"):
        await engine.launch(make_spec(environment={"A": "x\0y"}), quiet)


# -- limits and ends --------------------------------------------------------------------------------------------------


async def test_the_instance_type_limits_cpu_and_memory(engine: DockerEngine, make_spec: MakeSpec) -> None:
    spec = make_spec(instance_type="ml.c5.large")
    await engine.launch(spec, quiet)
    found = inspect(spec.id)["HostConfig"]
    assert found["Memory"] == found["MemorySwap"] == 4 * 1024**3
    assert found["NanoCpus"] == min(2, (await engine.capacity()).cpus) * 10**9


async def test_the_local_type_has_no_limit(engine: DockerEngine, make_spec: MakeSpec) -> None:
    spec = make_spec()
    await engine.launch(spec, quiet)
    found = inspect(spec.id)["HostConfig"]
    assert (found["Memory"], found["NanoCpus"]) == (0, 0)


async def test_a_container_that_wants_too_much_memory_is_said_to_have_been_killed_for_it(
    engine: DockerEngine, make_spec: MakeSpec
) -> None:
    spec = make_spec(instance_type="ml.c6g.medium")
    container = await engine.launch(spec, quiet)
    asking = asyncio.ensure_future(ask(container, do="eat", size=3 * 1024**3))
    ended = await exited(engine, spec.id)
    await asyncio.gather(asking, return_exceptions=True)
    assert ended.exit_reason == "killed for memory (limit 2 GiB)"


@pytest.mark.parametrize(("code", "reason"), [(0, "exited with 0"), (3, "exited with 3"), (139, "killed by SIGSEGV")])
async def test_an_exit_has_its_reason(engine: DockerEngine, make_spec: MakeSpec, code: int, reason: str) -> None:
    spec = make_spec()
    container = await engine.launch(spec, quiet)
    await asyncio.gather(ask(container, do="leave", code=code), return_exceptions=True)
    assert (await exited(engine, spec.id)).exit_reason == reason


async def test_an_exit_is_told(make_context: MakeContext, make_spec: MakeSpec) -> None:
    told: list[str] = []
    engine = DockerEngine(make_context(on_change=told.append))
    spec = make_spec()
    container = await engine.launch(spec, quiet)
    await asyncio.gather(ask(container, do="leave", code=1), return_exceptions=True)
    async with asyncio.timeout(300):
        while spec.id not in told[1:]:  # noqa: ASYNC110 - by whom is what is tested
            await asyncio.sleep(0.02)
    await end(engine)


async def test_stopping_asks_first(engine: DockerEngine, make_spec: MakeSpec) -> None:
    spec = make_spec()
    await ask(await engine.launch(spec, quiet), do="describe")
    await engine.stop(spec.id, 20)
    assert (await engine.logs(spec.id, 1)) == ["asked to end"]


async def test_what_does_not_end_is_killed(engine: DockerEngine, make_spec: MakeSpec) -> None:
    spec = make_spec(environment={"IGNORE_TERM": "1"})
    await ask(await engine.launch(spec, quiet), do="describe")
    async with asyncio.timeout(300):
        await engine.stop(spec.id, 1)
    assert not docker("ps", "-a", "-q", "--filter", f"label=clary.id={spec.id}")
    assert (await engine.logs(spec.id, 1)) == ["not now"]


async def test_stopping_takes_anonymous_volumes_along(
    engine: DockerEngine, make_spec: MakeSpec, server_image: str
) -> None:
    docker("build", "-q", "-t", "clary/test-server:volume", "-", given=f"FROM {server_image}\nVOLUME /cache\n".encode())
    spec = make_spec(image="clary/test-server:volume")

    async def launched() -> str:
        """Launch it, and give the name of its volume: others may make and remove theirs meanwhile."""
        await engine.launch(spec, quiet)
        [volume] = [mount["Name"] for mount in inspect(spec.id)["Mounts"] if mount["Type"] == "volume"]
        return str(volume)

    def there(volume: str) -> bool:
        return volume in docker("volume", "ls", "-q").split()

    volume = await launched()
    assert there(volume)
    await engine.stop(spec.id, 0)
    assert not there(volume)
    volume = await launched()
    docker("rm", "-f", engine._name(spec.id))  # without -v

    async def removed() -> bool:
        return not await engine.observe() and not there(volume)

    await until(removed)


async def test_what_docker_lost_sight_of_is_killed_in_its_control_groups(
    engine: DockerEngine, make_spec: MakeSpec
) -> None:
    spec = make_spec()
    container = await engine.launch(spec, quiet)
    assert lost.end("0" * 64) == 0
    assert lost.end(inspect(spec.id)["Id"]) == 1
    assert (await exited(engine, container.id)).exit_reason == "killed by SIGKILL"


@pytest.mark.parametrize("moment", ["create", "start"])
async def test_a_launch_that_is_cancelled_in_the_middle_leaves_nothing(
    engine: DockerEngine, make_spec: MakeSpec, moment: str
) -> None:
    spec = make_spec()
    reached = asyncio.Event()

    def progress(text: str) -> None:
        if text == "create":
            reached.set()

    task = asyncio.ensure_future(engine.launch(spec, progress))
    await reached.wait()
    if moment == "start":
        while not docker("ps", "-a", "-q", "--filter", f"label=clary.id={spec.id}"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not docker("ps", "-a", "-q", "--filter", f"label=clary.id={spec.id}")


async def test_stopping_ends_a_launch_that_is_under_way(engine: DockerEngine, make_spec: MakeSpec) -> None:
    spec = make_spec()
    begun = asyncio.Event()
    task = asyncio.ensure_future(engine.launch(spec, lambda text: begun.set() if text == "create" else None))
    await begun.wait()
    await engine.stop(spec.id, 0)
    with pytest.raises(LaunchFailure, match="stopped before it had started"):
        await task
    assert not docker("ps", "-a", "-q", "--filter", f"label=clary.id={spec.id}")


# -- finding again ----------------------------------------------------------------------------------------------------


async def test_an_image_of_a_pipeline_needs_the_label_that_the_service_asks_for(
    engine: DockerEngine, make_spec: MakeSpec
) -> None:
    image = build("clary/test-unlabelled:1", {}, 'ENTRYPOINT ["sleep"]')
    with pytest.raises(LaunchFailure, match=r"does not contain required .*accept-bind-to-port=true"):
        await engine.launch(make_spec(hostname="first", image=image), quiet)


async def test_a_gpu_that_is_not_there_is_a_refusal(engine: DockerEngine, make_spec: MakeSpec) -> None:
    if "nvidia" in docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this machine has what it takes")
    with pytest.raises(LaunchFailure, match="has GPUs, which this Docker cannot give to a container"):
        await engine.launch(make_spec(instance_type="ml.g4dn.xlarge"), quiet)
