"""How the server ends, and what is left of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.serving.conftest import PATIENCE

from .conftest import PID, Many, until

SLOW = """
import time
def model_fn(model_dir): return None
def predict_fn(data, model):
    print("begun", flush=True)
    time.sleep(0.5)
    return "done"
"""


def processes_of(many: Many) -> list[int]:
    """Give all processes of a server: it leads their session."""
    session = str(many.server.process.pid)
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[3] == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def test_sigterm_lets_what_is_begun_be_finished_and_leaves_nothing(
    launch_many: Callable[..., Many], tmp_path: Path
) -> None:
    # Longer than the address of a socket may be.
    temporary = tmp_path / ("t" * 100)
    temporary.mkdir()
    many = launch_many(TMPDIR=str(temporary))
    many.add("slow", SLOW)
    many.add("other", PID)
    assert len(list(temporary.glob("clary-serving-*/*"))) == 3
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(many.invoke, "slow")
        until(lambda: "begun" in many.server.log)
        for pid in processes_of(many):  # as the process engine does; Docker tells the first process only
            os.kill(pid, signal.SIGTERM)
        assert answer.result() == (200, "done")
    assert many.server.process.wait(PATIENCE) == 0
    until(lambda: processes_of(many) == [])
    assert list(temporary.iterdir()) == []
    assert "Traceback" not in many.server.log


def test_without_its_keeper_the_server_ends(launch_many: Callable[..., Many]) -> None:
    many = launch_many()
    many.add("one", PID)
    children = Path(f"/proc/{many.server.process.pid}/task/{many.server.process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert many.server.process.wait(PATIENCE) == 1
    until(lambda: processes_of(many) == [])
