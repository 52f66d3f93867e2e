"""What the process engine remembers of its containers: a file each, so that nothing runs that nobody knows of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from clary.core.containers import Container, ContainerSpec, ModelData, ModelPrefix, Network, Repository, Share
from clary.errors import LaunchFailure

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class Record:
    """One container. Times in seconds since the epoch."""

    spec: ContainerSpec
    phase: Literal["starting", "running", "exited"]
    """`starting`: launch has not returned; such a container is not adopted but ended."""
    port: int
    resolved_image: str
    groups: tuple[str, ...] = ()
    """Directories of its control groups."""
    artifacts: tuple[str, ...] = ()
    pid: int | None = None
    birth: str = ""
    """Tells its process from a later one with the same pid."""
    started_at: float = 0.0
    exit_reason: str | None = None
    exited_at: float | None = None

    @property
    def container(self) -> Container:
        spec = self.spec
        return Container(
            id=spec.id,
            endpoint=spec.endpoint,
            variant=spec.variant,
            instance_id=spec.instance_id,
            deployment=spec.deployment,
            phase="exited" if self.phase == "exited" else "running",
            host="127.0.0.1",
            port=self.port,
            started_at=self.started_at,
            pid=self.pid,
            image=spec.image,
            resolved_image=self.resolved_image,
            exit_reason=self.exit_reason,
            exited_at=self.exited_at,
            kind=spec.kind,
        )


def is_safe(id: str) -> bool:
    """Tell whether an id can be a file's name."""
    return _SAFE.fullmatch(id) is not None


def check_names(spec: ContainerSpec) -> None:
    """Refuse a spec of which an id or name could lead out of a folder. Raises LaunchFailure(create)."""
    if not all(is_safe(name) for name in (spec.id, spec.endpoint, spec.variant, spec.instance_id)):
        raise LaunchFailure("create", f"{spec.id}: its id or names cannot be names of files")
    if any(data.channel in (".", "..") or "/" in data.channel for data in spec.model_data):
        raise LaunchFailure("create", f"{spec.id}: a channel's name cannot be that of a directory")


def _spec(given: dict[str, Any]) -> ContainerSpec:
    wanted = given["network"]
    network = Network(wanted["isolated"], tuple(wanted["subnets"]), tuple(wanted["security_groups"]))
    data = tuple(ModelData(*each) for each in given["model_data"])
    share = None
    if wanted_share := given.get("share"):  # an older record has none
        share = Share(**{**wanted_share, "devices": tuple(wanted_share["devices"])})
    models = ModelPrefix(*given["models"]) if given.get("models") else None
    repository = Repository(**given["repository"])
    read = {"model_data": data, "models": models, "repository": repository, "network": network, "share": share}
    return ContainerSpec(**{**given, **read})


class Records:
    """The records in a folder, `<id>.json` each, written whole or not at all. The environment may hold secrets."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, record: Record) -> None:
        fresh = self._root / f".{record.spec.id}"
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(record)))
        fresh.rename(self._root / f"{record.spec.id}.json")

    def read(self, id: str) -> Record | None:
        """Give one record as it is on the disk."""
        try:
            table = json.loads((self._root / f"{id}.json").read_text())
        except FileNotFoundError:
            return None
        spec = _spec(table["spec"])
        lists = {name: tuple(table[name]) for name in ("groups", "artifacts")}
        return Record(**{**table, **lists, "spec": spec})

    def sweep(self) -> None:
        """Remove what an earlier life died writing: nothing had been started for it."""
        for draft in self._root.glob(".*"):
            draft.unlink()

    def read_all(self) -> Iterator[Record]:
        for file in sorted(self._root.glob("*.json")):
            if (record := self.read(file.stem)) is not None:
                yield record

    def remove(self, id: str) -> None:
        (self._root / f"{id}.json").unlink(missing_ok=True)
