"""A Podman of a test's own, for a network of its own: Docker's API from an engine that is not Docker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass

from tests import namespaces
from tests.containers import BIND_LABEL
from tests.dockerd import Daemon


def missing() -> str | None:
    """Say why there can be none here; None: there can."""
    if all(map(shutil.which, ("podman", "/usr/lib/podman/netavark", "/usr/lib/podman/aardvark-dns"))):
        return namespaces.missing()
    return "a Podman of our own takes podman, netavark and aardvark-dns"


@dataclass
class Podman(Daemon):
    """A Podman whose images and containers are all in one folder."""

    def begin(self) -> None:
        lines = [
            "[containers]",
            'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]',  # its own are more than some machines allow
            "[engine]",
            'events_logger = "file"',
            'cgroup_manager = "cgroupfs"',
            *(['runtime = "runc"'] if shutil.which("runc") else []),  # crun takes no mix of control groups 1 and 2
            "[network]",
            'network_backend = "netavark"',
            f"network_config_dir = {json.dumps(str(self.folder / 'networks'))}",
        ]
        (self.folder / "containers.conf").write_text("\n".join(lines))
        self.start()

    def start(self, *options: str) -> None:
        words = ["podman", "--root", f"{self.folder}/lib", "--runroot", f"{self.folder}/run", *options]
        environment = {**os.environ, "CONTAINERS_CONF": f"{self.folder}/containers.conf"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*words, "system", "service", "-t", "0", self.url], stdout=log, stderr=log, env=environment
            )
        deadline = time.monotonic() + 300
        while self.docker("version").returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.1)

    def load(self, image: str) -> None:
        """Give it what an image of Docker's runs with, which is a third of it, under the same name."""
        pack = "tar -c --one-file-system --exclude=usr/share --exclude=__pycache__ bin lib* sbin usr *.py"
        words = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "--workdir",
            "/",
            "--entrypoint",
            "sh",
            image,
            "-c",
            pack,
        ]
        environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as packing:
            changes = ("--change", 'ENTRYPOINT ["/server.py"]', "--change", f"LABEL {BIND_LABEL}=true")
            imported = self.docker("import", *changes, "-", image, given=packing)
        assert packing.returncode == imported.returncode == 0, imported.stderr

    def stop(self) -> None:
        left = self.docker("ps", "-a", "-q").stdout.decode().split()
        if left:  # a test has failed
            self.docker("rm", "-f", *left)
        self.process.kill()  # it would wait for those who follow its events
        self.process.wait(300)
        self.unmount()
