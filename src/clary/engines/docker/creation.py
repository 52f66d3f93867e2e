"""One container under the contract, as the body of Docker's create request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clary.core.containers import ContainerSpec
from clary.engines.docker import volumes
from clary.engines.docker.images import ResolvedImage
from clary.engines.docker.labels import OWNER
from clary.engines.docker.machine import Machine
from clary.engines.docker.networks import Attachment
from clary.engines.instance_types import Limits
from clary.errors import LaunchFailure

PORT = 8080
_SAFE_RANGE = "23000-23999"
"""As at the service; every container has the ports of its network namespace to itself."""
_LOG = {"Type": "json-file", "Config": {"max-size": "50m", "max-file": "2"}}
"""The least common denominator of engines. Clary copies the output away; the bound is for the time in which it is not
there to do so. Two large files and not several small ones: Docker itself loses its place where one is full twice before
it has read it once."""

_NO_GPUS = "Podman passes over what Docker's API asks for them with: take another instance type, or Docker's own engine"
_PROCESSES = 16_384
"""And threads, in a container: beyond any server's, and half of what the smallest kernel has for the whole machine."""


@dataclass(frozen=True, slots=True)
class Creation:
    """Everything that a container is made from."""

    spec: ContainerSpec
    image: ResolvedImage
    trees: Mapping[str, Path]
    """What to show, by its directory below /opt/ml."""
    attachment: Attachment
    limits: Limits | None
    machine: Machine
    region: str
    role_variables: Mapping[str, str]
    labels: Mapping[str, str]

    def body(self) -> dict[str, Any]:
        """Give what to send to POST /containers/create. Raises LaunchFailure for what the engine would pass over."""
        spec, mode = self.spec, self.attachment.mode
        exposed: dict[str, Any] = {f"{PORT}/tcp": {}} if self.attachment.published else {}
        body: dict[str, Any] = {
            "Image": self.image.reference,
            "Cmd": ["serve"],  # the image's ENTRYPOINT stays
            "Env": [f"{name}={value}" for name, value in self._environment().items()],
            "Labels": dict(self.labels),
            "StopSignal": "SIGTERM",
            "ExposedPorts": exposed,
            "HostConfig": self._host_config(),
        }
        if spec.hostname:
            body["Hostname"] = spec.hostname
        if mode != "none":
            aliases = [f"{spec.hostname}.{spec.instance_id}"] if spec.hostname else []
            body["NetworkingConfig"] = {"EndpointsConfig": {mode: {"Aliases": aliases}}}
        return body

    def _environment(self) -> dict[str, str]:
        return {
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            **self.role_variables,
            **self.spec.environment,
            **({"SAGEMAKER_MULTI_MODEL": "true"} if self.spec.models is not None else {}),
            "SAGEMAKER_BIND_TO_PORT": str(PORT),
            "SAGEMAKER_SAFE_PORT_RANGE": _SAFE_RANGE,
        }

    def _host_config(self) -> dict[str, Any]:
        trees = {f"/opt/ml/{place}": str(tree) for place, tree in self.trees.items()}
        config: dict[str, Any] = {
            "NetworkMode": self.attachment.mode,
            "Mounts": [
                *({"Type": "bind", "Source": tree, "Target": place, "ReadOnly": True} for place, tree in trees.items()),
                *volumes.mounts(self.image.volumes, trees, self.labels[OWNER]),
            ],
            "ShmSize": self.machine.shm,
            "SecurityOpt": self._security(),
            "CapDrop": ["NET_RAW"],  # or it could answer for its neighbours' addresses
            "PidsLimit": _PROCESSES,
            "LogConfig": _LOG,
            "RestartPolicy": {"Name": "no"},  # whoever reconciles decides
        }
        if self.attachment.published:
            config["PortBindings"] = {f"{PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
        if self.spec.hostname:
            # All containers are in one network, where a pipeline's names are those of its instance: looked up as
            # `container-1`, one is found as `container-1.i-0123...`. A network for each pipeline would be simpler,
            # and Docker has addresses for some thirty.
            config |= {"DnsSearch": [self.spec.instance_id], "DnsOptions": ["ndots:1"]}
        if self.limits is not None:
            config |= self._bounds(self.limits)
        return config

    def _security(self) -> list[str]:
        profile = self.machine.seccomp if self.attachment.mode == "none" else None
        return ["no-new-privileges", *([profile] if profile is not None else [])]

    def _bounds(self, limits: Limits) -> dict[str, Any]:
        bounds: dict[str, Any] = {
            "NanoCpus": int(min(limits.cpus, self.machine.cpus) * 1e9),  # Docker refuses more than there are
            "Memory": limits.memory,
            "MemorySwap": limits.memory,  # together: no swap, which instances do not have either
        }
        if limits.gpus:
            if self.machine.podman:
                raise LaunchFailure("create", f"{self.spec.instance_type} has GPUs, and {_NO_GPUS}")
            which = {"Count": limits.gpus} if limits.devices is None else {"DeviceIDs": [*map(str, limits.devices)]}
            bounds["DeviceRequests"] = [{**which, "Capabilities": [["gpu"]]}]
        return bounds
