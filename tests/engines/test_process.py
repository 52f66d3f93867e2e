"""The process engine on real processes."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from clary.core.containers import Container, ModelData
from clary.engines import posix
from clary.engines.context import EngineContext
from clary.engines.grants import Grants
from clary.engines.process import ProcessEngine
from clary.engines.records import Record
from clary.engines.termination import reason as reason_of
from clary.errors import LaunchFailure
from clary.testing import ModelSpecimens, Specimens, engine_conformance, holds_models_conformance
from tests.engines.conftest import SERVER, MakeSpec, ask, pack

MakeContext = Callable[..., EngineContext]


def quiet(_: str) -> None:
    """Progress that nobody follows."""


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(300):
        while not await holds():  # noqa: ASYNC110 - what is awaited is another process
            await asyncio.sleep(0.02)


async def exited(engine: ProcessEngine, id: str) -> Container:
    async def gone() -> bool:
        return any(container.id == id and container.phase == "exited" for container in await engine.observe())

    await until(gone)
    return next(container for container in await engine.observe() if container.id == id)


async def test_it_keeps_the_promises_of_every_engine(make_context: MakeContext, make_spec: MakeSpec) -> None:
    async def create() -> ProcessEngine:
        return ProcessEngine(make_context())

    specimens = Specimens(
        serves=make_spec(), exits=make_spec(environment={"EXIT": "3"}), broken=make_spec(image="no/such:image")
    )
    await engine_conformance(create, specimens)


async def test_it_keeps_the_promises_of_those_that_hold_models(
    make_context: MakeContext, make_spec: MakeSpec, tmp_path: Path
) -> None:
    async def create() -> ProcessEngine:
        return ProcessEngine(make_context())

    async def read(container: Container, path: str) -> str | None:
        if await ask(container.port, do="is_there", path=path):
            return str(await ask(container.port, do="read", path=path))
        return None

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


async def test_a_container_gets_what_the_contract_says(engine: ProcessEngine, make_spec: MakeSpec) -> None:
    container = await engine.launch(make_spec(environment={"MINE": "1", "SAGEMAKER_BIND_TO_PORT": "9"}), quiet)
    seen = await ask(container.port, do="describe")
    assert isinstance(seen, dict)
    environment = seen["environment"]
    assert seen["argv"] == ["serve"]
    assert seen["pid"] == seen["session"] == container.pid
    assert seen["files"] == ["serve.py"]
    assert environment["MINE"] == "1"
    assert environment["SAGEMAKER_BIND_TO_PORT"] == str(container.port)
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert environment["TMPDIR"] == environment["TEMP"] != "/tmp"
    assert Path(environment["TMPDIR"]).is_dir()
    low, high = map(int, environment["SAGEMAKER_SAFE_PORT_RANGE"].split("-"))
    assert container.port not in range(low, high + 1)
    assert container.resolved_image.startswith("clary-process/python@sha256:")


async def test_nothing_of_our_own_environment_leaks(
    engine: ProcessEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("CLARY_SECRET_ACCESS_KEY", "hidden")
    container = await engine.launch(make_spec(), quiet)
    seen = await ask(container.port, do="describe")
    assert "hidden" not in str(seen)


async def test_containers_share_no_port_and_no_range(engine: ProcessEngine, make_spec: MakeSpec) -> None:
    containers = await asyncio.gather(*(engine.launch(make_spec(), quiet) for _ in range(4)))
    ports: set[int] = set()
    for container in containers:
        seen = await ask(container.port, do="describe")
        assert isinstance(seen, dict)
        low, high = map(int, seen["environment"]["SAGEMAKER_SAFE_PORT_RANGE"].split("-"))
        mine = {container.port, *range(low, high + 1)}
        assert not ports & mine
        ports |= mine


async def test_the_model_is_at_its_place_and_cannot_be_written(engine: ProcessEngine, make_spec: MakeSpec) -> None:
    if notes := [note for note in (await engine.capacity()).notes if "/opt/ml/model" in note]:
        pytest.skip(notes[0])
    before = sorted(Path("/opt").iterdir())
    container = await engine.launch(make_spec(), quiet)
    seen = await ask(container.port, do="describe")
    assert isinstance(seen, dict)
    assert seen["environment"]["SM_MODEL_DIR"] == "/opt/ml/model"
    assert await ask(container.port, do="write", path="/opt/ml/model/x") == "Read-only file system"
    assert await ask(container.port, do="write", path="/opt/ml/x") == "written"
    assert sorted(Path("/opt").iterdir()) == before


async def test_without_mounts_the_variables_say_where_the_model_is(
    engine: ProcessEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object, **tried: bool) -> str | None:
        return "not permitted" if tried else None

    monkeypatch.setattr(Grants, "_probe", refused)
    container = await engine.launch(make_spec(), quiet)
    seen = await ask(container.port, do="describe")
    assert isinstance(seen, dict)
    assert seen["files"] == ["serve.py"]
    assert seen["environment"]["SM_MODEL_DIR"] == seen["environment"]["SAGEMAKER_BASE_DIR"] + "/model"
    assert any("/opt/ml/model" in note for note in (await engine.capacity()).notes)


@pytest.mark.parametrize("mounts", [True, False])
async def test_additional_data_is_beside_the_model_also_for_the_next_engine(
    make_context: MakeContext, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: bool
) -> None:
    async def probe(*_: object, **__: bool) -> str:
        return "not permitted"

    if not mounts:
        monkeypatch.setattr(Grants, "_probe", probe)
    (tmp_path / "models" / "weights").write_text("draft")
    packed = pack(tmp_path / "models" / "more.tar.gz", {"config": "packed"})
    own = make_spec().model_data
    spec = make_spec(
        model_data=(
            *own,
            ModelData((tmp_path / "models" / "weights").as_uri(), "object", "draft"),
            ModelData(packed, "archive", "a.b"),
        )
    )
    first = ProcessEngine(make_context())
    container = await first.launch(spec, quiet)
    seen = await ask(container.port, do="describe")
    assert isinstance(seen, dict)
    beside = Path(seen["environment"]["SM_MODEL_DIR"]).parent / "additional-model-data-sources"
    assert await ask(container.port, do="read", path=f"{beside}/draft/weights") == "draft"
    assert await ask(container.port, do="read", path=f"{beside}/a.b/config") == "packed"
    await first.close()
    second = ProcessEngine(make_context())
    (adopted,) = await second.observe()
    assert adopted.pid == container.pid
    assert len(list((tmp_path / "data" / "artifacts").glob("*/artifact.json"))) == 3
    await second.stop(container.id, 0)
    await second.close()


async def test_a_channel_cannot_leave_its_place(engine: ProcessEngine, make_spec: MakeSpec) -> None:
    with pytest.raises(LaunchFailure, match="channel"):
        await engine.launch(make_spec(model_data=(ModelData("file:///x", "object", ".."),)), quiet)


async def test_an_empty_model_directory_is_there_without_model_data(engine: ProcessEngine, make_spec: MakeSpec) -> None:
    with pytest.raises(LaunchFailure, match=r"brings no serve, code/serve, serve\.py or code/serve\.py") as failure:
        await engine.launch(make_spec(model_data=()), quiet)
    assert failure.value.step == "create"


async def test_an_archive_with_an_extra_top_folder_is_told_how_to_be_packed(
    engine: ProcessEngine, make_spec: MakeSpec, tmp_path: Path
) -> None:
    url = pack(tmp_path / "models" / "wrapped.tar.gz", {"wrap/serve.py": "pass"})
    with pytest.raises(LaunchFailure, match="It has an extra top folder, wrap: pack what is in it"):
        await engine.launch(make_spec(model_data=(ModelData(url),)), quiet)


async def test_handlers_without_a_server_are_told_which_images_run_them(
    engine: ProcessEngine, make_spec: MakeSpec, tmp_path: Path
) -> None:
    url = pack(tmp_path / "models" / "handlers.tar.gz", {"code/inference.py": "def model_fn(model_dir): pass"})
    with pytest.raises(LaunchFailure, match=r"functions in code/inference.py are what AWS's framework images run"):
        await engine.launch(make_spec(model_data=(ModelData(url),)), quiet)


@pytest.mark.parametrize(
    ("trick", "reason"),
    [
        ({"do": "leave", "code": 7}, "exited with 7"),
        ({"do": "die", "number": signal.SIGKILL}, "killed by SIGKILL"),
        ({"do": "die", "number": signal.SIGSEGV}, "killed by SIGSEGV"),
    ],
)
async def test_an_exit_is_told_and_explained(
    make_context: MakeContext, make_spec: MakeSpec, trick: dict[str, object], reason: str
) -> None:
    told: list[str] = []
    engine = ProcessEngine(make_context(told.append))
    container = await engine.launch(make_spec(), quiet)
    with pytest.raises(aiohttp.ClientError):
        await ask(container.port, **trick)
    ended = await exited(engine, container.id)
    assert ended.exit_reason == reason
    assert ended.exited_at is not None
    assert told == [container.id]
    assert list(await engine.logs(container.id, 9)) == ["one line", "another line"]
    await engine.stop(container.id, 0)
    await engine.close()


async def test_what_it_left_running_dies_with_the_first_process(engine: ProcessEngine, make_spec: MakeSpec) -> None:
    container = await engine.launch(make_spec(), quiet)
    child = await ask(container.port, do="stubborn_child", new_session=False)
    assert isinstance(child, int)
    born = posix.birth(child)
    with pytest.raises(aiohttp.ClientError):
        await ask(container.port, do="leave", code=0)
    await exited(engine, container.id)
    assert not posix.alive(child, born)


@pytest.mark.parametrize("new_session", [False, True])
async def test_stop_ends_children_that_ignore_sigterm(
    engine: ProcessEngine, make_spec: MakeSpec, new_session: bool
) -> None:
    container = await engine.launch(make_spec(), quiet)
    record = engine._records[container.id]
    if new_session and not record.groups:
        pytest.skip("no control group on this machine: a process that leaves its session is not found")
    child = await ask(container.port, do="stubborn_child", new_session=new_session)
    assert isinstance(child, int)
    born = posix.birth(child)
    log = engine._context.logs / "aws/sagemaker/Endpoints/iris/AllTraffic:i-0123456789abcdef0.log"
    await engine.stop(container.id, grace=0.2)
    assert not posix.alive(child, born)
    assert not await engine.observe()
    assert not list((engine._run / "private").iterdir())
    assert not list((engine._run / "containers").iterdir())
    assert not [group for group in record.groups if Path(group).exists()]
    assert log.read_text().startswith("one line")


async def test_stop_collects_also_what_is_slow_to_go(
    engine: ProcessEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await engine.launch(make_spec(), quiet)
    reap, early = posix.reap, iter(range(5))

    def not_yet(pid: int) -> int | None:
        """As where the first of a process's threads has ended, and another has not."""
        return None if posix.stat(pid).state == "Z" and next(early, None) is not None else reap(pid)  # type: ignore[union-attr]

    monkeypatch.setattr(posix, "reap", not_yet)
    await engine.stop(container.id, grace=5)
    assert container.pid is not None
    assert posix.stat(container.pid) is None


async def test_a_command_that_cannot_be_run_is_a_launch_failure(
    engine: ProcessEngine, make_spec: MakeSpec, tmp_path: Path
) -> None:
    url = pack(tmp_path / "models" / "not-executable.tar.gz", {"serve": "#!/bin/sh\n"})
    with pytest.raises(LaunchFailure, match=r"cannot run .*serve: Permission denied") as failure:
        await engine.launch(make_spec(model_data=(ModelData(url),)), quiet)
    assert failure.value.step == "create"
    assert not await engine.observe()
    assert not list((engine._run / "private").iterdir())


@pytest.mark.parametrize(
    ("value", "words"),
    [("a\0b", "embedded null byte"), ("\ud800", "surrogates not allowed"), ("x" * 3_000_000, "Argument list too long")],
    ids=["NUL", "no UTF-8", "too long"],
)
async def test_what_no_process_can_be_given_is_a_launch_failure(
    engine: ProcessEngine, make_spec: MakeSpec, value: str, words: str
) -> None:
    with pytest.raises(LaunchFailure, match=f"cannot run .*{words}") as failure:
        await engine.launch(make_spec(environment={"MINE": value}), quiet)
    assert failure.value.step == "create"
    assert not await engine.observe()


async def test_how_an_earlier_process_of_the_same_number_ended_is_forgotten(
    engine: ProcessEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.observe()
    exits = engine._run / "exits"
    exits.mkdir()
    spawn = posix.spawn_launcher

    def spawned(plan: int, report: int, log: int) -> int:
        pid = spawn(plan, report, log)
        (exits / str(pid)).write_text("0")
        return pid

    monkeypatch.setattr(posix, "spawn_launcher", spawned)
    await engine.launch(make_spec(), quiet)
    assert not list(exits.iterdir())


async def test_an_executable_that_the_model_brings_is_run(
    engine: ProcessEngine, make_spec: MakeSpec, tmp_path: Path
) -> None:
    files = {"serve": f"#!{sys.executable}\n{SERVER}"}
    url = pack(tmp_path / "models" / "executable.tar.gz", files, {"serve": 0o755})
    container = await engine.launch(make_spec(model_data=(ModelData(url),)), quiet)
    assert await ask(container.port, do="describe")


async def test_a_new_engine_takes_over_what_runs(make_context: MakeContext, make_spec: MakeSpec) -> None:
    first = ProcessEngine(make_context())
    container = await first.launch(make_spec(), quiet)
    await ask(container.port, do="describe")
    await first.close()
    told: list[str] = []
    second = ProcessEngine(make_context(told.append))
    assert list(await second.observe()) == [container]
    with pytest.raises(aiohttp.ClientError):
        await ask(container.port, do="leave", code=4)
    assert (await exited(second, container.id)).exit_reason == "exited with 4"
    assert told == [container.id]
    await second.stop(container.id, 0)
    await second.close()


LAUNCH_AND_DIE = """
import asyncio, os, pickle, sys
from clary.engines.process import ProcessEngine
context, spec = pickle.load(sys.stdin.buffer)
async def main():
    import clary.engines.context, clary.objects
    from pathlib import Path
    data = Path(context)
    objects = clary.objects.Objects(None, "", "", "us-east-1", (data.parent / "models",))
    engine = ProcessEngine(clary.engines.context.EngineContext(
        data=data, logs=data / "logs", objects=objects, catalogue=None, artifact_cache_bytes=10**9,
        max_artifact_bytes=10**8, region="eu-west-1", on_change=print))
    container = await engine.launch(spec, lambda _: None)
    print(container.pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


async def launch_and_die(data: Path, spec: object) -> int:
    """Launch from a process that is killed right after; give the container's pid."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LAUNCH_AND_DIE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(pickle.dumps((str(data), spec)))
    assert process.returncode == -signal.SIGKILL
    return int(out.split()[-1])  # the log is on the same stream


async def test_containers_outlive_a_killed_control_process(
    make_context: MakeContext, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec()
    pid = await launch_and_die(tmp_path / "data", spec)
    engine = ProcessEngine(make_context())
    (found,) = await engine.observe()
    assert (found.id, found.pid, found.phase) == (spec.id, pid, "running")
    assert await ask(found.port, do="describe")
    again = await engine.launch(spec, quiet)
    assert again.pid == pid
    # The supervisor is its parent's heir, and tells how it ended.
    exits = tmp_path / "data" / "run" / "exits"
    exits.mkdir()
    (exits / str(pid)).write_text(str(5 << 8))
    os.kill(pid, signal.SIGKILL)
    assert (await exited(engine, spec.id)).exit_reason == "exited with 5"
    await engine.stop(spec.id, 0)
    await engine.close()


async def test_an_exit_that_nobody_saw_is_said_to_be_one(
    make_context: MakeContext, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec()
    pid = await launch_and_die(tmp_path / "data", spec)
    os.kill(pid, signal.SIGKILL)
    engine = ProcessEngine(make_context())
    assert (await exited(engine, spec.id)).exit_reason == "exited while nobody watched"
    await engine.stop(spec.id, 0)
    await engine.close()


async def test_a_stranger_with_the_same_pid_is_left_alone(make_context: MakeContext, make_spec: MakeSpec) -> None:
    engine = ProcessEngine(make_context())
    container = await engine.launch(make_spec(), quiet)
    record = engine._records[container.id]
    await engine.stop(container.id, 0)
    stranger = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    boot, _, _ = record.birth.partition("/")
    engine._disk.write(replace(record, pid=stranger.pid, birth=f"{boot}/1", groups=()))
    await engine.close()
    heir = ProcessEngine(make_context())
    (found,) = await heir.observe()
    assert found.phase == "exited"
    await heir.stop(container.id, 0)
    await heir.close()
    assert stranger.returncode is None
    assert posix.stat(stranger.pid) is not None
    stranger.kill()
    await stranger.wait()


async def test_a_launch_that_never_returned_is_undone(make_context: MakeContext, make_spec: MakeSpec) -> None:
    engine = ProcessEngine(make_context())
    container = await engine.launch(make_spec(), quiet)
    record = engine._records[container.id]
    engine._disk.write(replace(record, phase="starting"))
    await engine.close()
    heir = ProcessEngine(make_context())
    assert not await heir.observe()
    assert record.pid is not None
    assert not posix.alive(record.pid, record.birth)
    await heir.close()


async def test_a_launch_that_died_before_it_was_written_down_leaves_nothing(
    make_context: MakeContext, make_spec: MakeSpec
) -> None:
    engine = ProcessEngine(make_context())
    container = await engine.launch(make_spec(), quiet)
    groups = engine._grants.groups.create("lost", None)
    drafts = [engine._disk._root / ".lost", engine._run / "relays" / ".lost"]
    for draft in drafts:
        draft.parent.mkdir(exist_ok=True)
        draft.write_text("secrets")
    await engine.close()
    heir = ProcessEngine(make_context())
    assert await heir.observe() == (container,)
    assert not any(path.exists() for path in (*groups, *drafts))
    await heir.stop(container.id, 0)
    await heir.close()


async def test_stop_cancels_a_launch(engine: ProcessEngine, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec()
    reached = asyncio.Event()
    launch = asyncio.ensure_future(engine.launch(spec, lambda _: reached.set()))
    await reached.wait()
    await engine.stop(spec.id, 0)
    with pytest.raises(LaunchFailure, match="stopped before it had started"):
        await launch
    assert not await engine.observe()


async def test_a_slow_download_fails_in_its_time(engine: ProcessEngine, make_spec: MakeSpec) -> None:
    with pytest.raises(LaunchFailure, match="ModelDataDownloadTimeoutInSeconds") as failure:
        await engine.launch(make_spec(download_timeout=0.0), quiet)
    assert failure.value.step == "download"


@pytest.mark.parametrize(
    ("status", "kills", "reason"),
    [
        (9, 1, "killed for memory (limit 8 GiB)"),
        (9, 0, "killed by SIGKILL"),
        (3 << 8, 0, "exited with 3"),
        (1 << 8, 1, "exited with 1, a process of it having been killed for memory (limit 8 GiB)"),
        (None, 0, "exited while nobody watched"),
        (40, 0, "killed by signal 40"),
    ],
)
def test_how_it_ended_is_said_in_words(make_spec: MakeSpec, status: int | None, kills: int, reason: str) -> None:
    record = Record(make_spec(instance_type="ml.m5.large"), "running", 1, "")
    assert reason_of(status, kills, record) == reason
