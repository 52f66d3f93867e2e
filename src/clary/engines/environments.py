"""Virtual environments for models, built by uv, each once for all the models that need the same.

`<data>/environments/<key>` is one; the key is made of the interpreter, the packages and the text of the model's
requirements. Environments cannot be moved, so that one is built in place and is whole when it has its `.complete`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uv

import clary
from clary.core.containers import Progress
from clary.engines.catalogue import Recipe
from clary.errors import LaunchFailure
from clary.telemetry import logger

SCRIPT_PACKAGES = ("sagemaker-inference>=1.10.1", "boto3>=1.34", "gunicorn>=23")
"""What Clary's own model server needs besides the framework. The toolkit asks for any boto3: without a lower bound uv
walks back to the oldest, building one source after the other."""
_LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """A built environment."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def scripts(self) -> Path:
        return self.path / "bin"


class Environments:
    """The environments in a folder. uv runs with `variables`, from which credentials are taken out."""

    def __init__(self, root: Path, variables: Mapping[str, str] = os.environ) -> None:
        self._root = root
        self._variables = {
            name: value for name, value in variables.items() if not name.startswith(("CLARY_", "AWS_", "VIRTUAL_ENV"))
        }

    async def get(self, recipe: Recipe, model: Path, progress: Progress) -> PythonEnvironment:
        """Give the environment for a recipe and a model's directory. Raises LaunchFailure with uv's last lines."""
        requirements = _requirements(recipe, model)
        text = requirements.read_text(errors="replace") if requirements else ""
        packages = [*recipe.packages, *(SCRIPT_PACKAGES if recipe.runtime == "script" else ())]
        python = await self._interpreter(recipe.python)
        settings = {name: value for name, value in recipe.uv.items() if name not in self._variables}
        identity = [python, packages, text, sorted(settings.items())]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        environment = PythonEnvironment(self._root / key)
        if not (environment.path / ".complete").exists():
            progress("environment: wait for its turn")
            async with _locked(self._root / f"{key}.lock"):
                if not (environment.path / ".complete").exists():
                    await self._build(environment, python, settings, _Wanted(packages, requirements, progress))
                    if recipe.runtime == "script":
                        progress("environment: compile")
                        await _compile(environment, recipe.environment.get("CLARY_SERVING_FRAMEWORK", "none"))
                    (environment.path / ".complete").touch()
        return environment

    async def _build(
        self, environment: PythonEnvironment, python: str, settings: Mapping[str, str], wanted: _Wanted
    ) -> None:
        path = environment.path
        if path.exists():  # left by a crash
            await asyncio.to_thread(shutil.rmtree, path)
        wanted.progress("environment: create")
        await self._uv(["venv", "--quiet", "--no-python-downloads", "--python", python, str(path)], settings)
        arguments = list(wanted.packages)
        if wanted.requirements:
            arguments += ["--requirement", str(wanted.requirements)]
        if arguments:
            wanted.progress(f"environment: install {' '.join(wanted.packages) or 'the requirements of the model'}")
            await self._uv(["pip", "install", "--python", str(environment.python), *arguments], settings)

    async def _interpreter(self, version: str | None) -> str:
        """Give the path of the Python of that version, or of ours where the machine has none."""
        if version is None or version == f"{sys.version_info.major}.{sys.version_info.minor}":
            return sys.executable
        with contextlib.suppress(LaunchFailure):
            return (await self._uv(["python", "find", "--system", "--no-python-downloads", version], {})).strip()
        return sys.executable

    async def _uv(self, arguments: Sequence[str], settings: Mapping[str, str]) -> str:
        process = await asyncio.create_subprocess_exec(
            uv.find_uv_bin(),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in {**settings, **self._variables}.items() if value},
            start_new_session=True,
        )
        try:
            out, error = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        if process.returncode != 0:
            last = [line for line in error.decode(errors="replace").splitlines() if line.strip()][-_LAST_LINES:]
            raise LaunchFailure("environment", f"uv {' '.join(arguments[:2])} failed:\n" + "\n".join(last))
        return out.decode()


async def _compile(environment: PythonEnvironment, framework: str) -> None:
    """Import once what models of the framework import, so that the first of them does not wait for Python's compiler.

    Only time is lost where it fails.
    """
    process = await asyncio.create_subprocess_exec(
        str(environment.python),
        str(Path(clary.__path__[0]) / "serving" / "preload.py"),
        framework,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.defpath},
    )
    if await process.wait() != 0:
        logger("environments").warning("the framework does not import", environment=str(environment.path))


@dataclass(frozen=True, slots=True)
class _Wanted:
    packages: Sequence[str]
    requirements: Path | None
    progress: Progress


def _requirements(recipe: Recipe, model: Path) -> Path | None:
    """Find the model's own requirements."""
    return next((model / name for name in recipe.requirements if (model / name).is_file()), None)


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock file. The kernel lets go of it when its holder dies, whichever way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Polled: a thread that blocks in flock could not be cancelled.
                await asyncio.sleep(0.1)
        yield
    finally:
        os.close(descriptor)
