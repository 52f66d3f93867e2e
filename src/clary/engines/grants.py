"""What a machine lets us do beyond running processes: mount, isolate, contain. Each is tried out first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clary.engines import cgroups, isolation, staging
from clary.telemetry import logger

_NO_MOUNT = (
    "Models are not shown at /opt/ml/model, because this machine does not let us mount: SM_MODEL_DIR and "
    "SAGEMAKER_BASE_DIR say where they are, and nothing keeps a model from writing there."
)
_log = logger("engine")


class Grants:
    """What is granted to the engine of one data folder. `name`: of its control groups; `probe`: folders to try with."""

    def __init__(self, data: Path, name: str, probe: staging.Folders) -> None:
        self._data = data
        self._folders = probe
        self.groups = cgroups.discover(name)
        self.mounts = False
        """Whether models can be shown at /opt/ml/model."""
        self.no_isolation: str | None = None
        """Why this machine cannot isolate, and what would let it."""

    async def find_out(self) -> None:
        """Try everything once."""
        self.mounts = await self._probe(mounts=True) is None
        trouble = await self._probe(isolated=True)
        self.no_isolation = None if trouble is None else isolation.obstacle(trouble)
        groups = self.groups.create("probe", None)
        if groups and await self._probe(groups) is not None:
            self.groups = cgroups.ControlGroups(())
        cgroups.remove(groups)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not granted, in words."""
        others = (None if self.mounts else _NO_MOUNT, self.no_isolation)
        return (*self.groups.notes, *(note for note in others if note is not None))

    async def _probe(self, groups: Sequence[Path] = (), *, mounts: bool = False, isolated: bool = False) -> str | None:
        """Try whether the machine lets us do the one or the other; give why not."""
        empty = isolation.plan(self._data, [self._folders.root]) if isolated else None
        trouble = await staging.try_out(self._folders, groups, empty, mounts=mounts)
        if trouble is not None:
            _log.info("not permitted here", reason=trouble)
        return trouble
