"""A dockerd of a test's own, which can be killed and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path


def missing() -> str | None:
    """Say why there can be none here; None: there can."""
    if os.geteuid() == 0 and shutil.which("dockerd") and shutil.which("containerd"):
        return None
    return "a dockerd of our own takes root, dockerd and containerd"


@dataclass
class Daemon:
    """A dockerd that leaves the machine's network rules, and the other dockerd, alone.

    As on most machines, containerd is a service beside it and outlives it.
    """

    folder: Path
    options: tuple[str, ...] = ()
    containerd: subprocess.Popen[bytes] = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/d.sock"

    def begin(self) -> None:
        place = self.folder
        (place / "c.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')  # it listens
        words = ["containerd", "--config", f"{place}/c.toml", "--address", f"{place}/c.sock"]
        words += ["--root", f"{place}/c", "--state", f"{place}/s"]
        with (place / "containerd.log").open("ab") as log:
            self.containerd = subprocess.Popen(words, stdout=log, stderr=log)
        self.start()

    def start(self, *options: str) -> None:
        """Start dockerd and wait until it answers; `options` are of this life alone."""
        words = ["dockerd", "--data-root", f"{self.folder}/lib", "--exec-root", f"{self.folder}/run"]
        words += ["--pidfile", f"{self.folder}/pid", "--host", self.url, "--bridge=none", "--iptables=false"]
        words += ["--containerd", f"{self.folder}/c.sock", *self.options, *options]
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while self.docker("version").returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.1)

    def docker(
        self, *arguments: str, given: subprocess.Popen[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        command = ["docker", "--host", self.url, *arguments]
        return subprocess.run(command, capture_output=True, stdin=given.stdout if given else None)

    def load(self, image: str) -> None:
        """Give it an image of the Docker that other tests use."""
        environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE, env=environment) as saving:
            loaded = self.docker("load", given=saving)
        assert loaded.returncode == 0, loaded.stderr

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End dockerd alone; `start` brings it back."""
        self.process.send_signal(number)
        self.process.wait()

    def stop(self) -> None:
        left = self.docker("ps", "-a", "-q").stdout.decode().split()
        if left:  # a test has failed
            self.docker("rm", "-f", *left)
        self.process.terminate()
        self.process.wait(300)
        self.containerd.terminate()
        self.containerd.wait(300)
        self.unmount()

    def unmount(self) -> None:
        for mount in Path("/proc/mounts").read_text().splitlines():
            if str(self.folder) in mount:
                subprocess.run(["umount", "-l", mount.split()[1]], capture_output=True)
