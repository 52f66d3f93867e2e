"""What Docker keeps for us on each container, and how that and its state become a `core.containers.Container` again.

Labels are all that adoption needs: nothing on our disk has to agree with Docker. They hold no variable of the model's,
which may be secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from aiodocker.containers import DockerContainer

from clary.core.containers import Container, ContainerSpec
from clary.core.resources import ENDPOINT
from clary.engines.endings import ending
from clary.engines.instance_types import Limits, limits

OWNER = "clary.owner"
"""Whose it is: the identity of a data folder."""
ID = "clary.id"
"""The planner's id of it."""
_INSTANCE_TYPE, _RESOLVED = "clary.instance-type", "clary.resolved-image"
_ARTIFACTS, _LOG_GROUP, _LOG_STREAM = "clary.artifacts", "clary.log-group", "clary.log-stream"
_ENDPOINT, _VARIANT, _INSTANCE = "clary.endpoint", "clary.variant", "clary.instance"
_DEPLOYMENT, _IMAGE = "clary.deployment", "clary.image"
_KIND = "clary.kind"
"""Containers of an earlier Clary do not have it: they are endpoints'."""
_ALL = {
    *(OWNER, ID, _ENDPOINT, _VARIANT, _INSTANCE, _DEPLOYMENT, _IMAGE),
    *(_RESOLVED, _INSTANCE_TYPE, _ARTIFACTS, _LOG_GROUP, _LOG_STREAM),
}
_COMPONENT, _MEMORY = "clary.inference-component", "clary.memory"
"""Of copies of components alone: its name, and the bytes that it may use."""
_LARGEST_SIGNAL = 64
_NANOSECONDS = re.compile(r"\.(\d{6})\d*")

Inspected = Mapping[str, Any]
"""A container as Docker's API describes it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a container was launched with, beyond what is observed of it."""

    container_id: str
    """Docker's id: another one than that of its successor with the same name."""
    log_group: str
    log_stream: str
    artifacts: tuple[str, ...]
    log_path: str = ""
    """Where the engine says that it writes the log: a file of its own machine."""


def to_labels(owner: str, spec: ContainerSpec, resolved: str, artifacts: tuple[str, ...]) -> dict[str, str]:
    """Give the labels of a container. `artifacts`: the keys of what it is shown."""
    own = {_COMPONENT: spec.component} if spec.component else {}
    if spec.share is not None:
        own[_MEMORY] = str(spec.share.memory)
    return {
        **own,
        OWNER: owner,
        ID: spec.id,
        _ENDPOINT: spec.endpoint,
        _VARIANT: spec.variant,
        _INSTANCE: spec.instance_id,
        _DEPLOYMENT: spec.deployment,
        _IMAGE: spec.image,
        _RESOLVED: resolved,
        _INSTANCE_TYPE: spec.instance_type,
        _ARTIFACTS: json.dumps(artifacts),
        _LOG_GROUP: spec.log_group,
        _LOG_STREAM: spec.log_stream,
        _KIND: spec.kind,
    }


def name_of(owner: str, id: str) -> str:
    """Give the name of a container: made from our id, so Docker itself refuses to make it twice."""
    return f"clary-{owner}-{id}"


def is_ours(owner: str, listed: DockerContainer) -> bool:
    """Tell whether we made what Docker lists: anybody may write our labels, and `docker commit` copies them.

    From here on they can be read without a guard.
    """
    found = listed["Labels"] or {}
    return is_whole(found) and f"/{name_of(owner, found[ID])}" in listed["Names"]


def is_whole(found: Mapping[str, str]) -> bool:
    """Tell whether the labels are all there."""
    if not found.keys() >= _ALL:
        return False
    try:
        artifacts = json.loads(found[_ARTIFACTS])
    except ValueError:
        return False
    return isinstance(artifacts, list) and all(isinstance(key, str) for key in artifacts)


def id_of(inspected: Inspected) -> str:
    return str(inspected["Config"]["Labels"][ID])


def id_of_event(event: Mapping[str, Any]) -> str:
    """Give our id of the container that an event tells of."""
    return str(event["Actor"]["Attributes"][ID])


def kept(inspected: Inspected) -> Kept:
    labels = inspected["Config"]["Labels"]
    artifacts, log_path = tuple(json.loads(labels[_ARTIFACTS])), inspected.get("LogPath") or ""
    return Kept(inspected["Id"], labels[_LOG_GROUP], labels[_LOG_STREAM], artifacts, log_path)


def to_container(inspected: Inspected, contract_port: int) -> Container:
    """Say in our words what Docker says of a container that was started."""
    labels, state = inspected["Config"]["Labels"], inspected["State"]
    exited = not state["Running"]
    host, port = _address(inspected, contract_port)
    return Container(
        id=labels[ID],
        endpoint=labels[_ENDPOINT],
        variant=labels[_VARIANT],
        instance_id=labels[_INSTANCE],
        deployment=labels[_DEPLOYMENT],
        phase="exited" if exited else "running",
        host=host,
        port=port,
        started_at=_seconds(state["StartedAt"]),
        pid=state.get("Pid") or None,
        image=labels[_IMAGE],
        resolved_image=labels[_RESOLVED],
        exit_reason=_reason(state, labels) if exited else None,
        exited_at=_seconds(state["FinishedAt"]) if exited else None,
        kind=labels.get(_KIND, ENDPOINT.name),
    )


def phase(inspected: Inspected) -> Literal["created", "started", "leaving"]:
    """Tell whether its launch has ended, and whether it is being removed."""
    status = inspected["State"]["Status"]
    return "created" if status == "created" else "leaving" if status == "removing" else "started"


def is_isolated(inspected: Inspected) -> bool:
    """Tell whether it has no network: it is reached by a relay, which is not Docker's to tell of."""
    return bool(inspected["HostConfig"]["NetworkMode"] == "none")


def _address(inspected: Inspected, contract_port: int) -> tuple[str, int]:
    settings = inspected["NetworkSettings"]
    for bindings in (settings.get("Ports") or {}).values():
        for binding in bindings or ():
            return "127.0.0.1", int(binding["HostPort"])
    networks = settings.get("Networks") or {}
    own = f"clary-{inspected['Config']['Labels'][OWNER]}"  # the others need not lead here
    addresses = (it.get("IPAddress") for name, it in networks.items() if name.startswith(own))
    return next(filter(None, addresses), "127.0.0.1"), contract_port


def _reason(state: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    code = int(state["ExitCode"])
    if 128 < code <= 128 + _LARGEST_SIGNAL:
        code = 128 - code  # Docker gives a signal's number so; a process that exits with such a number means the same
    bounds = limits(labels.get(_INSTANCE_TYPE, ""))
    if labels.get(_MEMORY, "").isdigit():
        bounds = Limits(0.0, int(labels[_MEMORY]))
    return ending(code, short_of_memory=bool(state.get("OOMKilled")), limits=bounds)


def _seconds(time: str) -> float:
    """Turn RFC 3339 with nanoseconds into seconds since the epoch."""
    return datetime.fromisoformat(_NANOSECONDS.sub(r".\1", time)).timestamp()
