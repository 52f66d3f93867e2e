"""Which of the containers on a Docker host are ours: those of our data folder."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path


def identity(data: Path, root: Path) -> str:
    """Give what tells this data folder from any other whose Clary has the same Docker.

    Made of its path and of a number that lies in it: neither a copy elsewhere nor another machine's folder of the same
    path (a volume at /data, say) is taken for it.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = root / "identity"
    if not file.exists():
        fresh = root / f".identity.{os.getpid()}"
        fresh.write_text(uuid.uuid4().hex)
        fresh.rename(file)
    return hashlib.sha256(os.fsencode(data.absolute()) + file.read_bytes()).hexdigest()[:10]
