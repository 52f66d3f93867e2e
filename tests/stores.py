"""New stores for tests. The schema is made once in a process: migrating takes longer than most tests do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from clary.store.store import Store

_empty = b""
"""The file of a store that holds nothing."""


async def new_store(folder: Path, clock: Callable[[], float] = time.time) -> Store:
    """Open a store that holds nothing yet, as `clary.db` in a folder."""
    global _empty
    file = folder / "clary.db"
    if not _empty:
        await (await Store.open(file)).close()
        _empty = file.read_bytes()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_empty)
    return await Store.open(file, clock)
