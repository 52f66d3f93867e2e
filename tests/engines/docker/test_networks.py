"""What containers on a real Docker reach, and how they are reached."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import aiohttp
import pytest

from clary.core.containers import Network
from clary.engines.context import EngineContext
from clary.engines.docker.engine import DockerEngine
from clary.errors import LaunchFailure
from tests.containers import docker, needs_docker
from tests.engines.conftest import MakeSpec
from tests.engines.docker.conftest import ask, end, inspect, quiet, until

pytestmark = [needs_docker, pytest.mark.usefixtures("nothing_is_left")]

MakeContext = Callable[..., EngineContext]


async def test_the_containers_of_a_pipeline_know_each_other_by_name_and_no_other_instances(
    engine: DockerEngine, make_spec: MakeSpec
) -> None:
    named = {}
    for instance in ("i-00000000000000001", "i-00000000000000002"):
        for name in ("pre", "model"):
            spec = make_spec(hostname=name, instance_id=instance)
            named[instance, name] = await engine.launch(spec, quiet)
    for instance in ("i-00000000000000001", "i-00000000000000002"):
        asker, asked = named[instance, "pre"], named[instance, "model"]
        assert await ask(asker, do="resolve", name="model") == asked.host
        assert (await ask(asked, do="describe"))["hostname"] == "model"
        assert await ask(asker, do="connect", host="model", port=8080) == "connected"
        assert (await ask(asker, do="resolve", name="post")).startswith("no:")


async def test_models_do_not_reach_each_other(engine: DockerEngine, make_spec: MakeSpec) -> None:
    one, other = [await engine.launch(make_spec(), quiet) for _ in range(2)]
    for asker, asked in ((one, other), (other, one)):
        await ask(asked, do="describe")
        assert (await ask(asker, do="connect", host=asked.host, port=8080)).startswith("no:")


@pytest.fixture
def networks() -> Iterator[dict[str, str]]:
    """Two networks of an operator's, one with a way out."""
    names = {"subnet-0a": f"test-{os.getpid()}-a", "sg-0b": f"test-{os.getpid()}-b"}
    docker("network", "create", names["subnet-0a"])
    docker("network", "create", "--internal", names["sg-0b"])
    yield names
    docker("network", "rm", *names.values())


async def test_a_vpc_config_is_the_networks_that_the_table_says(
    networks: dict[str, str], make_context: MakeContext, make_spec: MakeSpec
) -> None:
    engine = DockerEngine(make_context(networks=networks))
    other = await engine.launch(make_spec(), quiet)
    spec = make_spec(network=Network(subnets=("subnet-0a",), security_groups=("sg-0b",)))
    container = await engine.launch(spec, quiet)
    joined = inspect(spec.id)["NetworkSettings"]["Networks"]
    assert set(networks.values()) < set(joined)
    assert len(joined) == 3
    [way_out] = [line.split()[2] for line in (await ask(container, do="describe"))["routes"] if _is_default(line)]
    assert _address(way_out) == joined[networks["subnet-0a"]]["Gateway"]
    assert (await ask(container, do="connect", host=other.host, port=other.port)).startswith("no:")
    assert container in await engine.observe()
    await end(engine)


async def test_where_the_operators_networks_lead_nowhere_there_is_no_way_out(
    networks: dict[str, str], make_context: MakeContext, make_spec: MakeSpec
) -> None:
    engine = DockerEngine(make_context(networks=networks))
    other = await engine.launch(make_spec(), quiet)
    container = await engine.launch(make_spec(network=Network(security_groups=("sg-0b",))), quiet)
    assert (await ask(container, do="connect", host=other.host, port=other.port)).startswith("no:")
    assert (await ask(container, do="connect", host="192.0.2.77", port=80)).startswith("no:")
    await end(engine)


def _is_default(route: str) -> bool:
    return route.split()[1] == "00000000"


def _address(kernels: str) -> str:
    """Turn what /proc/net/route has for an address into the usual form."""
    return socket.inet_ntoa(struct.pack("<L", int(kernels, 16)))


async def test_ids_that_are_not_in_the_table_are_refused(make_context: MakeContext, make_spec: MakeSpec) -> None:
    engine = DockerEngine(make_context(networks={"subnet-1": "no-such-network"}))
    with pytest.raises(LaunchFailure, match=r"subnet-2, sg-9 are not in \[networks\]"):
        await engine.launch(
            make_spec(network=Network(subnets=("subnet-1", "subnet-2"), security_groups=("sg-9",))), quiet
        )
    with pytest.raises(LaunchFailure, match=r"sg-9 is not in \[networks\]"):
        await engine.launch(make_spec(network=Network(subnets=("subnet-1",), security_groups=("sg-9",))), quiet)
    with pytest.raises(LaunchFailure, match="docker network create no-such-network"):
        await engine.launch(make_spec(network=Network(subnets=("subnet-1",))), quiet)
    await end(engine)


async def test_an_isolated_container_reaches_nothing_and_is_reached(
    make_context: MakeContext, make_spec: MakeSpec
) -> None:
    if os.geteuid() != 0:
        pytest.skip("entering a container's network namespace takes root")
    engine = DockerEngine(make_context())
    other = await engine.launch(make_spec(), quiet)
    spec = make_spec(network=Network(isolated=True))
    container = await engine.launch(spec, quiet)
    seen = await ask(container, do="describe")
    assert seen["routes"] == []
    assert (await ask(container, do="resolve", name="deb.debian.org")).startswith("no:")
    assert (await ask(container, do="connect", host=other.host, port=other.port)).startswith("no:")
    with socket.create_server(("0.0.0.0", 0)) as listening:
        gateway = other.host.rpartition(".")[0] + ".1"
        port = listening.getsockname()[1]
        assert await ask(other, do="connect", host=gateway, port=port) == "connected", "the proof proves something"
        assert (await ask(container, do="connect", host=gateway, port=port)).startswith("no:")
    await engine.close()
    engine = DockerEngine(make_context())
    adopted = next(each for each in await engine.observe() if each.id == spec.id)
    assert (adopted.host, adopted.port) == (container.host, container.port)
    assert await ask(adopted, do="files", path="/opt/ml/model") == []
    await end(engine)


async def test_where_containers_have_no_address_here_a_port_is_published(
    engine: DockerEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clary.engines.docker.networks._is_here", lambda _: False)
    container = await engine.launch(make_spec(), quiet)
    assert container.host == "127.0.0.1"

    async def listens() -> bool:  # Docker accepts in the model's place before it does
        with contextlib.suppress(aiohttp.ClientError):
            return await ask(container, do="files", path="/opt/ml") == ["model"]
        return False

    await until(listens)
    assert await ask(container, do="files", path="/opt/ml/model") == []
    [again] = await engine.observe()
    assert again == replace(container)
