"""The numbers that come in variables, and the streams that are the container's log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO


def number(variable: str, default: int) -> int:
    """Read a whole number above zero. Ends the process with a sentence where it is none."""
    value = os.environ.get(variable) or str(default)
    if not value.isdigit() or int(value) < 1:
        sys.exit(f"{variable} is {value!r}; it must be a whole number above zero")
    return int(value)


def cpus() -> int:
    """Give how many CPUs the container has: `SM_NUM_CPUS`, which the platform sets, or the machine's."""
    return number("SM_NUM_CPUS", os.cpu_count() or 1)


def flush_lines() -> None:
    """Write every line to the log at once."""
    for stream in (sys.stdout, sys.stderr):
        _flush_lines(stream)


def _flush_lines(stream: TextIO) -> None:
    reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)
