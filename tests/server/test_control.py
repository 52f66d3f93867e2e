from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from clary.errors import Transient
from clary.server import control


async def test_a_container_that_does_not_stop_keeps_none_of_the_others() -> None:
    stopped = []

    async def observe() -> list[Any]:
        return [SimpleNamespace(id="stuck"), SimpleNamespace(id="good")]

    async def stop(id: str, grace: float) -> None:
        if id == "stuck":
            raise Transient("outlives SIGKILL")
        await asyncio.sleep(0)
        stopped.append((id, grace))

    engine: Any = SimpleNamespace(observe=observe, stop=stop)
    await control.stop_all(engine, 3.0)
    assert stopped == [("good", 3.0)]
