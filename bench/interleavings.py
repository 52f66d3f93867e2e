"""The state machine of loads, requests, evictions and deaths (tests/controllers/test_residency_machine.py), for long.

Both real sides of the protocol, in virtual time: a control plane that is killed and comes back, gateways, containers
that die, models that are deleted or larger than the memory. The tests run twenty examples of it; this runs as many as
the time allows, each of a hundred steps, and stops at the first that breaks a promise.

    .venv/bin/python bench/interleavings.py [--seconds 180] [--seed 1]
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from pathlib import Path

import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.controllers.test_residency_machine import ManyModels

STEPS = 100
EXAMPLES = 50
"""Of each seed."""
COUNTED: Counter[str] = Counter()


class Counting(ManyModels):
    """Counts what happened before it is forgotten."""

    def teardown(self) -> None:
        if hasattr(self, "world"):
            COUNTED["examples"] += 1
            COUNTED["requests"] += len(self.requests)
            servers = self.world.machine.servers.values()
            COUNTED["loads"] += sum(len(server.loads) for server in servers)
            COUNTED["containers"] += len(servers)
            COUNTED["containers killed"] += sum(not server.alive for server in servers)
        super().teardown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    until, number = time.monotonic() + arguments.seconds, arguments.seed
    checked = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None, print_blob=False,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    while time.monotonic() < until:
        try:
            run_state_machine_as_test(seed(number)(Counting), settings=checked)
        except BaseException:
            print(f"--seed {number} breaks it")
            raise
        number += 1
    print(", ".join(f"{count} {what}" for what, count in COUNTED.items()), "and no broken promise")


if __name__ == "__main__":
    main()
