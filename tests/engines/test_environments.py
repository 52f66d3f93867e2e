"""Environments that uv really builds, from nothing but what is on this machine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from clary.engines.catalogue import Recipe
from clary.engines.environments import Environments
from clary.errors import LaunchFailure


@pytest.fixture
def package(tmp_path: Path) -> str:
    """A package that needs no index: a wheel, written by hand."""
    import zipfile

    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "value = 42\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return f"tiny @ {wheel.as_uri()}"


def quiet(_: str) -> None:
    """Progress that nobody follows."""


async def run(python: Path, code: str) -> str:
    process = await asyncio.create_subprocess_exec(python, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode().strip()


async def test_it_holds_what_was_asked_for_and_nothing_of_ours(tmp_path: Path, package: str) -> None:
    environment = await Environments(tmp_path / "e").get(Recipe("x", "serve", packages=(package,)), tmp_path, quiet)
    assert await run(environment.python, "import tiny; print(tiny.value)") == "42"
    assert await run(environment.python, "import importlib.util as u; print(u.find_spec('clary'))") == "None"


async def test_equal_wishes_share_one_environment_that_is_built_once(tmp_path: Path, package: str) -> None:
    told: list[str] = []
    recipe = Recipe("x", "serve", packages=(package,))
    one, two = await asyncio.gather(*(Environments(tmp_path / "e").get(recipe, tmp_path, told.append) for _ in "12"))
    assert one == two
    assert told.count("environment: create") == 1
    assert (await Environments(tmp_path / "e").get(recipe, tmp_path, told.append)) == one
    assert told.count("environment: create") == 1


async def test_the_models_requirements_are_installed_and_count(tmp_path: Path, package: str) -> None:
    recipe = Recipe("x", "serve", requirements=("code/requirements.txt",))
    environments = Environments(tmp_path / "e")
    bare = await environments.get(recipe, tmp_path, quiet)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "requirements.txt").write_text(package)
    full = await environments.get(recipe, tmp_path, quiet)
    assert bare != full
    assert await run(full.python, "import tiny; print(tiny.value)") == "42"


async def test_half_of_one_that_a_crash_left_is_built_again(tmp_path: Path, package: str) -> None:
    environments = Environments(tmp_path / "e")
    recipe = Recipe("x", "serve", packages=(package,))
    environment = await environments.get(recipe, tmp_path, quiet)
    (environment.path / ".complete").unlink()
    environment.python.unlink()
    assert await environments.get(recipe, tmp_path, quiet) == environment
    assert await run(environment.python, "import tiny; print(tiny.value)") == "42"


async def test_a_failure_has_uvs_own_words(tmp_path: Path) -> None:
    environments = Environments(tmp_path / "e", {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "HOME": str(tmp_path)})
    with pytest.raises(LaunchFailure, match="no-such-package") as failure:
        await environments.get(Recipe("x", "serve", packages=("no-such-package==9",)), tmp_path, quiet)
    assert failure.value.step == "environment"


async def test_a_python_that_is_not_here_is_replaced_by_ours(tmp_path: Path) -> None:
    environment = await Environments(tmp_path / "e").get(Recipe("x", "serve", python="3.99"), tmp_path, quiet)
    found = await run(environment.python, "import sys; print(*sys.version_info[:2], sep='.')")
    assert found == f"{sys.version_info.major}.{sys.version_info.minor}"
