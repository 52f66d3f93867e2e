"""Trains the demonstration model, in a Python of its own: Clary itself needs no scikit-learn."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tarfile
from importlib import resources
from pathlib import Path

from clary.core.containers import Progress
from clary.engines.catalogue import Catalogue
from clary.engines.environments import Environments
from clary.errors import ClaryError


class TrainingFailed(ClaryError):
    """The demonstration model could not be trained."""


def training_python(environments: Path, image: str, progress: Progress) -> Path:
    """Give the Python of the environment in which the process engine will serve the image; it is built if need be.

    A pickled model is for one version of scikit-learn: so it is the same one, and it is installed once.
    Raises LaunchFailure.
    """
    no_model = environments / "none"  # the demonstration model has no requirements of its own
    built = asyncio.run(Environments(environments).get(Catalogue().resolve(image), no_model, progress))
    return built.python


def train(python: Path, out: Path) -> dict[str, object]:
    """Train into `out` (model.joblib, code/inference.py) and give what the script says of it."""
    with resources.as_file(resources.files("clary.cli") / "demo_model") as source:
        said = _run(str(python), str(source / "train.py"), str(out))
    result: dict[str, object] = json.loads(said.splitlines()[-1])
    return result


def pack(folder: Path, archive: Path) -> None:
    """Pack a folder's content, at the root of the archive, as SageMaker wants it."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-5:]
        raise TrainingFailed(f"{Path(command[0]).name} {command[1]} exited with {done.returncode}: {' | '.join(last)}")
    return done.stdout
