"""`kill -9` of whatever works at transform jobs, at any moment: each object is done once, and none is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import Clary, model_processes, wait_until
from tests.acceptance.test_transform import create_model, log, outputs, request, wait

pytestmark = pytest.mark.acceptance

OBJECTS, LINES = 40, 10
"""So many that a job still works when this process, on a busy machine, gets to see how far it is."""


def begin(clary: Clary, name: str) -> None:
    for number in range(OBJECTS):
        clary.upload(f"{name}/{number:02}.csv", b"".join(b"%d,%d\n" % (number, line) for line in range(LINES)))
    given = request(name, f"s3://models/{name}/", BatchStrategy="SingleRecord", MaxConcurrentTransforms=2)
    clary.client("sagemaker").create_transform_job(**given)


def check(clary: Clary, name: str) -> None:
    described = wait(clary, name)
    assert described["TransformJobStatus"] == "Completed", f"{described}\n{clary.output()[-4000:]}"
    assert outputs(clary, name) == {
        f"{number:02}.csv.out": b"".join(b"%d,%d\n" % (2 * number, 2 * line) for line in range(LINES))
        for number in range(OBJECTS)
    }


def agent(clary: Clary) -> int:
    """Give the process id of the agent that works, once there is one."""
    found: list[int] = []

    def there() -> bool:
        for lock in (clary.data / "run" / "transforms").glob("*/lock"):
            text = read(lock)
            if text and Path(f"/proc/{text}").exists():
                found.append(int(text))
        return bool(found)

    wait_until(there, "an agent works", clary.output)
    return found[0]


def journal(clary: Clary) -> int:
    return sum(read(file).count("]") for file in (clary.data / "run" / "transforms").glob("*/journal"))


def read(file: Path) -> str:
    """Read a file of a job, whose folder may go at any moment."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


@pytest.fixture
def slow(own_clary: Clary) -> Clary:
    create_model(own_clary, "doubler", PAUSE="0.05")
    own_clary.client("s3").create_bucket(Bucket="out")
    return own_clary


def test_what_is_done_is_not_done_again_whoever_is_killed(slow: Clary) -> None:
    draw = random.Random(7)
    begin(slow, "kills")
    for victim in ("agent", "control", "agent", "gateway", "model", "agent"):
        before = journal(slow)
        wait_until(lambda before=before: journal(slow) > before, "it goes on", slow.output)  # type: ignore[misc]
        time.sleep(draw.uniform(0, 0.2))
        match victim:
            case "agent":
                os.kill(agent(slow), signal.SIGKILL)
            case "model":
                os.kill(model_processes(slow)[0], signal.SIGKILL)
            case _:
                os.kill(slow.child(f"clary.server {victim}"), signal.SIGKILL)
    check(slow, "kills")
    asked = sum("request of" in line for line in log(slow, "kills"))
    # Three agents were killed and one model: each time the few objects that were open are done again, and no others.
    assert OBJECTS * LINES <= asked <= (OBJECTS + 4 * 3) * LINES
    wait_until(lambda: not list((slow.data / "run" / "transforms").iterdir()), "journals are pruned", slow.output)


def test_a_job_goes_on_after_everything_was_killed(slow: Clary) -> None:
    begin(slow, "whole")
    wait_until(lambda: journal(slow) > 1, "it works", slow.output)
    worked = agent(slow)
    slow.process.kill()
    slow.process.wait()
    wait_until(lambda: not Path(f"/proc/{worked}").exists(), "the agent ends with its supervisor", slow.output)
    (slow.data / "run" / "clary.json").unlink()
    slow.start()
    check(slow, "whole")


def test_a_job_goes_on_after_a_stop_in_good_order(slow: Clary) -> None:
    begin(slow, "stopped-in-order")
    wait_until(lambda: journal(slow) > 1, "it works", slow.output)
    done, worked = journal(slow), agent(slow)
    slow.process.terminate()
    assert slow.process.wait(300) == 0
    assert not Path(f"/proc/{worked}").exists()
    slow.start()
    check(slow, "stopped-in-order")
    assert 0 < done < OBJECTS
