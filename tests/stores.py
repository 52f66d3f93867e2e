"""New stores for tests. The schema is made once in a process: migrating takes longer than most tests do."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from clary.store.store import Store

_folder = tempfile.TemporaryDirectory(prefix="clary-schema-")
_EMPTY = Path(_folder.name) / "empty.db"


async def new_store(folder: Path, clock: Callable[[], float] = time.time) -> Store:
    """Open a store that holds nothing yet, as `clary.db` in a folder."""
    if not _EMPTY.exists():
        await (await Store.open(_EMPTY)).close()
    folder.mkdir(parents=True, exist_ok=True)
    return await Store.open(Path(shutil.copy(_EMPTY, folder / "clary.db")), clock)
