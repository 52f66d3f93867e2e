"""A real Docker for tests: whether one answers, and images that are made on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

BASE = "clary/test-base:bookworm-2"
"""Debian with Python; made once on a machine, and kept. nginx is what MLflow's own image has in front of its server."""
_INCLUDE = "python3,ca-certificates,nginx-light"
_PACKAGES = "/usr/local/lib/python3.11/dist-packages"
"""Where the base's Python looks for more."""
BIND_LABEL = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"


@functools.cache
def missing() -> str | None:
    """Say what tests with containers lack here; None: nothing."""
    if shutil.which("docker") is None:
        return "no docker command: apt-get install docker.io, start dockerd, and run the tests as root once"
    if _docker("version", "--format", "{{.Server.Version}}").returncode:
        return "no Docker engine answers: start dockerd (Debian: docker.io) or point DOCKER_HOST to one"
    if _docker("image", "inspect", BASE).returncode and not _can_bootstrap():
        return f"no image {BASE}: install debootstrap and run the tests as root once, which makes it"
    return None


def _docker(*arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", *arguments], capture_output=True, input=given, timeout=600)


def docker(*arguments: str, given: bytes | None = None) -> str:
    """Run a docker command that has to work; give what it prints."""
    done = _docker(*arguments, given=given)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def _can_bootstrap() -> bool:
    return os.geteuid() == 0 and shutil.which("debootstrap") is not None


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one test process at a time make an image; the others find it then."""
    with (Path(tempfile.gettempdir()) / "clary-test-images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def base_image() -> str:
    """Give the image that the others are made from."""
    with _alone():
        return _base_image()


def _base_image() -> str:
    if _docker("image", "inspect", BASE).returncode == 0:
        return BASE
    with tempfile.TemporaryDirectory() as folder:
        for attempt in range(3):  # of some hundred downloads one may fail
            tree = Path(folder) / f"tree-{attempt}"
            words = ["debootstrap", "--variant=minbase", f"--include={_INCLUDE}", "bookworm", str(tree)]
            made = subprocess.run(words, capture_output=True, text=True, timeout=1200)
            if made.returncode == 0:
                break
        assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
        with subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE) as packing:
            imported = subprocess.run(["docker", "import", "-", BASE], stdin=packing.stdout, capture_output=True)
    assert imported.returncode == 0, imported.stderr.decode()
    return BASE


def build(name: str, files: Mapping[str, str | bytes], *lines: str, base: str | None = None) -> str:
    """Build an image from the base, or another, and give its name.

    Files that are text go to the root and are executable; bytes are for the lines of a Dockerfile that follow.
    """
    texts = [file for file, content in files.items() if isinstance(content, str)]
    recipe = "\n".join([f"FROM {base or base_image()}", *(f"COPY {file} /{file}" for file in texts), *lines])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file, content in {"Dockerfile": recipe, **files}.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(file)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    docker("build", "-q", "-t", name, "-", given=buffer.getvalue())
    return name


def build_with_packages(name: str, requirements: Path, script: str) -> str:
    """Build an image of the base and Python packages, in which a script has run already.

    What it imports starts faster from then on. An image that was made from the same is taken as it is.
    """
    recipe = f"{BASE}\n{requirements.read_text()}\n{script}"
    image = f"{name}:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    base = base_image()
    with _alone():
        return _build_with_packages(image, base, requirements, script)


def _build_with_packages(image: str, base: str, requirements: Path, script: str) -> str:
    if _docker("image", "inspect", image).returncode == 0:
        return image
    lines = [
        f"FROM {base}",
        f"COPY site {_PACKAGES}",
        # Commands name the Python that installed them, which is not the one here.
        f"RUN sed -i '1s|^#!.*|#!/usr/bin/python3|' {_PACKAGES}/bin/* && mv {_PACKAGES}/bin/* /usr/local/bin",
        "COPY script.py /",
        "RUN python3 /script.py",
    ]
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text("\n".join(lines))
        (context / "script.py").write_text(script)
        uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--python-version", "3.11"]
        words = [*uv, "--no-deps", "--require-hashes", "--target", str(context / "site"), "-r", str(requirements)]
        installed = subprocess.run(words, capture_output=True, text=True, timeout=600)
        assert installed.returncode == 0, installed.stderr[-4000:]
        docker("build", "-q", "--network", "none", "-t", image, folder)
    return image


def containers_of(endpoint: str, owner: str) -> list[str]:
    """Give the containers of an endpoint of one data folder, running or not: others may have one of that name."""
    labels = ("--filter", f"label=clary.endpoint={endpoint}", "--filter", f"label=clary.owner={owner}")
    return docker("ps", "-a", "-q", "--no-trunc", *labels).split()


def left_of(owner: str) -> list[str]:
    """Give the containers, networks and volumes that there are of one data folder."""
    kinds = (("ps", "-a"), ("network", "ls"), ("volume", "ls"))
    return [id for kind in kinds for id in docker(*kind, "-q", "--filter", f"label=clary.owner={owner}").split()]


@pytest.fixture(scope="session")
def docker_here() -> None:
    """Skip where there is no Docker. From one place, so that a summary has one line for all."""
    if (reason := missing()) is not None:
        pytest.skip(f"containers: {reason}")


needs_docker = pytest.mark.usefixtures("docker_here")
