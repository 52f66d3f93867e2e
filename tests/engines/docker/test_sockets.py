"""Where containers of a real Docker listen."""

from __future__ import annotations

import pytest

from clary.core.containers import Network
from clary.engines.docker.engine import DockerEngine
from tests.containers import needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, quiet

pytestmark = [needs_docker, pytest.mark.usefixtures("nothing_is_left")]


@pytest.mark.parametrize("isolated", [False, True])
async def test_a_container_shows_what_it_listens_on_inside(
    engine: DockerEngine, make_spec: MakeSpec, isolated: bool
) -> None:
    container = await engine.launch(make_spec(network=Network(isolated=isolated)), quiet)
    await ask(container, do="describe")
    await engine.observe()
    assert await engine.listens(container.id) == ("0.0.0.0:8080",)
