"""The networks of containers, and how each container is connected.

A data folder has bridges of its own, each made when it is first needed: one on which containers do not see each other,
one for pipelines, whose containers call each other by name, and one without a way out for models with a VpcConfig,
whose traffic is to leave by the operator's networks alone. Another one, of all Clarys on the machine, holds the one
address besides loopback at which AWS's SDKs let a container ask for credentials: the host has it there, and
the gateways listen on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiodocker import Docker, DockerError
from aiodocker.networks import DockerNetwork

from clary.core.containers import ContainerSpec
from clary.core.sessions import CREDENTIALS_HOST
from clary.engines.docker.daemon import translated
from clary.engines.docker.labels import OWNER
from clary.engines.docker.machine import Machine
from clary.errors import LaunchFailure
from clary.telemetry import logger

LINK = "clary-link"
_SHARED = "clary.shared"
_LINK_SUBNET = "169.254.170.0/23"
"""Of the link-local addresses that no EC2 service but the container credentials has: about 500 containers."""
_APART = {"com.docker.network.bridge.enable_icc": "false"}
_log = logger("docker")


@dataclass(frozen=True, slots=True)
class Attachment:
    """How one container is connected. `mode`: the network that it is created in."""

    mode: str
    others: tuple[str, ...] = ()
    linked: bool = False
    """Whether the container can ask this machine for credentials."""
    published: bool = False
    """Reached by a port of this machine's loopback, because its own address leads nowhere from here."""


class Networks:
    """The networks of one data folder. `table`: the operator's, from ids of subnets and security groups to names."""

    def __init__(self, docker: Docker, owner: str, table: Mapping[str, str], machine: Machine) -> None:
        self._docker = docker
        self._own, self._pipelines, self._inner = (f"clary-{owner}{end}" for end in ("", "-pipelines", "-inner"))
        self._labels = {OWNER: owner}
        self._table = table
        self._machine = machine
        self._lock = asyncio.Lock()

    async def attach(self, spec: ContainerSpec, *, wants_credentials: bool) -> Attachment:
        """Make the networks that a container needs and say how it is connected.

        Raises LaunchFailure(create) for ids that the table does not have, or Transient.
        """
        if spec.network.isolated:
            return Attachment("none")
        mapped = self._mapped(spec)
        for name in mapped:
            await self._check(name)
        async with self._lock:
            own, config = (self._pipelines, {}) if spec.hostname else (self._own, {"Options": _APART})
            local = await self._ensure(own, config)
            if mapped and local:
                await self._ensure(self._inner, {"Internal": True})
            linked = wants_credentials and await self._ensure_link()
        link = (LINK,) if linked else ()
        if not mapped:
            return Attachment(own, link, linked=linked, published=not local)
        if local:
            return Attachment(self._inner, mapped + link, linked=linked)
        # Docker publishes no port of an internal bridge.
        return Attachment(mapped[0], mapped[1:] + link, linked=linked, published=True)

    async def connect(self, name: str, container: str) -> None:
        """Connect a container, which is in another network, to one more."""
        await self._network(name).connect({"Container": container})

    def _network(self, name: str) -> DockerNetwork:
        # Not networks.get, which asks Docker once more. aiodocker has no types here.
        return DockerNetwork(self._docker, name)  # type: ignore[no-untyped-call]

    async def remove_unused(self) -> None:
        """Remove every network of ours that no container is in."""
        for label in (f"{OWNER}={self._labels[OWNER]}", _SHARED):
            for network in await self._docker.networks.list(filters={"label": [label]}):
                with contextlib.suppress(DockerError):  # somebody is in it, or has removed it
                    await (await self._docker.networks.get(network["Id"])).delete()

    def _mapped(self, spec: ContainerSpec) -> tuple[str, ...]:
        ids = (*spec.network.subnets, *spec.network.security_groups)
        if unknown := [id for id in dict.fromkeys(ids) if id not in self._table]:
            verb = "is" if len(unknown) == 1 else "are"
            raise LaunchFailure(
                "create",
                f"{', '.join(unknown)} {verb} not in [networks]: the settings file says which Docker network each "
                "subnet and security group of a VpcConfig stands for",
            )
        return tuple(dict.fromkeys(self._table[id] for id in ids))

    async def _ensure_link(self) -> bool:
        config = {
            "Internal": True,
            "Labels": {_SHARED: "yes"},
            "IPAM": {"Config": [{"Subnet": _LINK_SUBNET, "Gateway": CREDENTIALS_HOST}]},
            # Containers of different Clarys meet here: they can reach the host, and not each other.
            "Options": _APART,
        }
        try:
            return await self._ensure(LINK, config)
        except LaunchFailure as refused:
            raise LaunchFailure(
                "create",
                f"the network {LINK} ({_LINK_SUBNET}), for the credentials of roles, cannot be made: {refused.message}",
            ) from refused

    async def _check(self, name: str) -> None:
        with translated(f"looking for the network {name}"):
            try:
                await self._docker.networks.get(name)
            except DockerError as error:
                if error.status != 404:
                    raise
                raise LaunchFailure(
                    "create",
                    f"there is no Docker network {name}, which [networks] has for a subnet or security group of the "
                    f"model: make it with `docker network create {name}`",
                ) from error

    async def _ensure(self, name: str, config: Mapping[str, Any]) -> bool:
        """Make a bridge unless there is one; tell whether its containers can be reached from this machine."""
        network = self._network(name)
        with translated(f"making the network {name}"):
            try:
                found = await network.show()
            except DockerError as error:
                if error.status != 404:
                    raise
                if self._machine.podman:  # it knows none of Docker's options
                    config = {key: value for key, value in config.items() if key != "Options"}
                full = {"Name": name, "CheckDuplicate": True, "Driver": "bridge", "Labels": self._labels, **config}
                try:
                    await self._docker.networks.create(full)
                    _log.info("network made", network=name)
                except DockerError as conflict:
                    if conflict.status != 409:  # another Clary was faster
                        raise
                found = await network.show()
            local = self._machine.local
            return _is_here(found["IPAM"]["Config"]) if local is None else local


def _is_here(configuration: list[Mapping[str, str]]) -> bool:
    """Tell whether a bridge is one of this machine's own: its gateway is then an address of ours.

    It is not where Docker has a machine of its own (Docker Desktop) or a network namespace of its own (rootless).
    """
    for each in configuration:
        if gateway := each.get("Gateway"):
            with socket.socket(socket.AF_INET6 if ":" in gateway else socket.AF_INET, socket.SOCK_DGRAM) as probe:
                try:
                    probe.bind((gateway, 0))
                except OSError:
                    return False
                return True
    return False
