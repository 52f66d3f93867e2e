"""What a relay adds between the gateway and an isolated container, against the same backend without one.

Two backends run, one of them in a network namespace of its own. Rounds alternate between the two, so that a machine
that changes its speed changes it for both; ratios are of medians in one run. Needs `wrk`, and root or user namespaces.

    .venv/bin/python bench/relay.py [--rounds 5] [--seconds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from clary.engines import posix, staging
from clary.engines.launcher import Plan
from clary.engines.ports import Ports
from clary.engines.relay import Relays

BACKEND = Path(__file__).with_name("backend.py")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass
class Way:
    """One way to the backend: its port, and the relay's process where there is one."""

    name: str
    port: int
    pid: int | None = None
    rps: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, connections: int, seconds: int) -> None:
        before = self._cpu()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{self.port}/"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        requests = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
        self.rps.append(float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]))  # type: ignore[index]
        for percentile, into in (("50", self.p50), ("99", self.p99)):
            value, unit = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)", out).groups()  # type: ignore[union-attr]
            into.append(float(value) * UNITS[unit])
        self.cpu.append((self._cpu() - before) / requests)

    def _cpu(self) -> float:
        if self.pid is None:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def line(self) -> str:
        p50, p99, cpu = (statistics.median(values) * 1e6 for values in (self.p50, self.p99, self.cpu))
        rps = statistics.median(self.rps)
        return f"{self.name:8} {rps:9.0f} req/s  p50 {p50:6.0f} us  p99 {p99:6.0f} us  relay's CPU {cpu:5.1f} us/req"


async def backend(port: int, isolated: bool, folder: Path) -> int:
    plan: Plan = {
        "command": [sys.executable, str(BACKEND), str(port)],
        "environment": {},
        "directory": "/",
        "trees": {},
        "stage": "",
        "groups": [],
        "isolation": {"hidden": [], "kept": []} if isolated else None,
    }
    return await staging.start(plan, folder / "log", lambda _: None)


async def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=3)
    given = arguments.parse_args()
    ports = Ports(str(os.getpid()))
    port = ports.take().port
    with tempfile.TemporaryDirectory() as folder:
        relays = Relays(Path(folder) / "relays")
        pids = [await backend(port, False, Path(folder)), await backend(port, True, Path(folder))]
        relay = await relays.ensure("bench", pids[1], port)
        await asyncio.sleep(1)
        for connections in (1, 64):
            ways = [Way("direct", port), Way("relayed", relay.port, relay.pid)]
            for _ in range(given.rounds):
                for way in ways:
                    await asyncio.to_thread(way.measure, connections, given.seconds)
            direct, relayed = ways
            print(f"{connections} connections")
            print(*(f"  {way.line()}" for way in ways), sep="\n")
            added = (statistics.median(relayed.p50) - statistics.median(direct.p50)) * 1e6
            share = statistics.median(relayed.rps) / statistics.median(direct.rps)
            print(f"  added p50 {added:.0f} us, {share:.2f} of the direct throughput")
        for pid in pids:
            posix.send(posix.signal.SIGKILL, {pid})
            posix.reap(pid)
        await relays.end("bench")
        await relays.close()


if __name__ == "__main__":
    asyncio.run(main())
