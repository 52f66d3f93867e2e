"""A Docker of our own that is killed and comes back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clary.engines.context import EngineContext
from clary.engines.docker.engine import DockerEngine
from clary.errors import Transient
from tests.containers import needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, end, exited, quiet, until

pytestmark = [
    needs_docker,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("dockerd") is None, reason="a dockerd of our own takes root and dockerd"
    ),
]

MakeContext = Callable[..., EngineContext]


@dataclass
class Daemon:
    """A dockerd that leaves the machine's network rules, and the other dockerd, alone.

    As on most machines, containerd is a service beside it and outlives it.
    """

    folder: Path
    containerd: subprocess.Popen[bytes] = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/d.sock"

    def begin(self) -> None:
        place = self.folder
        words = ["containerd", "--root", f"{place}/c", "--state", f"{place}/s", "--address", f"{place}/c.sock"]
        with (place / "containerd.log").open("ab") as log:
            self.containerd = subprocess.Popen(words, stdout=log, stderr=log)
        self.start()

    def start(self) -> None:
        words = ["dockerd", "--data-root", f"{self.folder}/lib", "--exec-root", f"{self.folder}/run"]
        words += ["--pidfile", f"{self.folder}/pid", "--host", self.url, "--bridge=none", "--iptables=false"]
        words += ["--containerd", f"{self.folder}/c.sock"]
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self.docker("version").returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.1)

    def docker(
        self, *arguments: str, given: subprocess.Popen[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        command = ["docker", "--host", self.url, *arguments]
        return subprocess.run(command, capture_output=True, stdin=given.stdout if given else None)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        left = self.docker("ps", "-a", "-q").stdout.decode().split()
        if left:  # a test has failed
            self.docker("rm", "-f", *left)
        self.process.terminate()
        self.process.wait(60)
        self.containerd.terminate()
        self.containerd.wait(60)
        for mount in Path("/proc/mounts").read_text().splitlines():
            if str(self.folder) in mount:
                subprocess.run(["umount", "-l", mount.split()[1]], capture_output=True)


@pytest.fixture
def daemon(server_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as folder:
        here = Daemon(Path(folder))
        here.begin()
        try:
            with subprocess.Popen(["docker", "save", server_image], stdout=subprocess.PIPE) as saving:
                loaded = here.docker("load", given=saving)
            assert loaded.returncode == 0, loaded.stderr
            monkeypatch.setenv("DOCKER_HOST", here.url)
            yield here
        finally:
            here.stop()


async def test_containers_that_a_killed_docker_took_along_are_seen_as_ended_and_can_be_replaced(
    daemon: Daemon, make_context: MakeContext, make_spec: MakeSpec
) -> None:
    told: list[str] = []
    engine = DockerEngine(make_context(on_change=told.append))
    spec = make_spec()
    first = await engine.launch(spec, quiet)
    await ask(first, do="say", lines=5)
    daemon.kill()
    with pytest.raises(Transient):
        await engine.observe()
    assert await ask(first, do="files", path="/opt/ml/model") == [], "it serves while Docker is dead"
    await ask(first, do="say", lines=5, begin=5)
    told.clear()
    await asyncio.to_thread(daemon.start)  # without live-restore, Docker ends what it finds running

    async def noticed() -> bool:
        return spec.id in told

    await until(noticed)
    assert (await exited(engine, spec.id)).exit_reason
    await engine.stop(spec.id, 0)
    second = await engine.launch(spec, quiet)
    assert second.started_at > first.started_at
    await ask(second, do="say", lines=1, begin=100)

    async def logged() -> bool:
        return "line 100" in await engine.logs(spec.id, 100)

    await until(logged)
    lines = [line for line in await engine.logs(spec.id, 100) if line.startswith("line")]
    assert lines[:5] == [f"line {number}" for number in range(5)]
    assert len(set(lines)) == len(lines)
    await end(engine)
    assert not daemon.docker("network", "ls", "-q", "--filter", "label=clary.owner").stdout
    assert not daemon.docker("ps", "-a", "-q").stdout
