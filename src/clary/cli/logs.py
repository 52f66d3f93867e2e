"""`clary logs`: what an endpoint's containers wrote, read where it lies, below `<data>/logs/aws/sagemaker/Endpoints`.

Logs must be readable while Clary does not run, and after an endpoint is gone.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click

from clary.cli.connection import data_folder, data_option
from clary.core.failure import printable
from clary.core.resources import component_log_group, log_group
from clary.errors import AwsError, ClaryError
from clary.logs.folder import LogFolder
from clary.logs.patterns import compile_pattern
from clary.logs.stream import Event, Range, Stream

POLL = 0.2
_LINES = 100
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class NoLogs(ClaryError):
    """The endpoint has written nothing here."""


@dataclass(frozen=True, slots=True)
class View:
    """Which lines are shown, and how, by the names of the options. `since` in milliseconds since the epoch."""

    since: int
    lines: int | None
    matches: Callable[[str], bool]
    timestamps: bool

    @property
    def count(self) -> int | None:
        """How many lines of each container are shown that are there already; None: all."""
        return self.lines if self.lines is not None or self.since else _LINES

    def print(self, stream: Stream, event: Event) -> None:
        """Print one event as a terminal would leave it: of a progress bar, its last state."""
        prefix = click.style(stream.name, fg="cyan")
        if self.timestamps:
            moment = datetime.fromtimestamp(event.timestamp / 1000, UTC)
            prefix = f"{moment.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z {prefix}"
        for line in event.message.split("\n"):
            click.echo(f"{prefix}  {printable(line.rstrip(chr(13)).rpartition(chr(13))[2])}")


def _moment(_: click.Context, __: click.Parameter, text: str | None) -> int:
    """Read `10m` or an ISO 8601 time, in milliseconds since the epoch; without an offset it is of this machine."""
    if text is None:
        return 0
    if found := re.fullmatch(r"(\d+)([smhdw])", text):
        return int((time.time() - int(found[1]) * _UNITS[found[2]]) * 1000)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise click.BadParameter("must be a number with s, m, h, d or w, or a time such as 2026-01-31T12:00") from None


def _pattern(_: click.Context, __: click.Parameter, text: str) -> Callable[[str], bool]:
    try:
        return compile_pattern(text)
    except AwsError as error:
        raise click.BadParameter(error.message) from None


@click.command()
@click.argument("endpoint")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is written, until Ctrl-C.")
@click.option("--variant", help="Only this variant's.")
@click.option(
    "--lines", type=click.IntRange(min=0), help=f"Last lines of each container [default {_LINES}; with --since, all]."
)
@click.option("--since", metavar="TIME", callback=_moment, help="Only lines since then: `10m`, `2026-01-31T12:00`.")
@click.option(
    "--filter", "matches", metavar="PATTERN", default="", callback=_pattern,
    help="Only lines that match a pattern of CloudWatch Logs: `ERROR -health`, `{ $.level = \"warn\" }`.",
)  # fmt: skip
@click.option("--timestamps", is_flag=True, help="Begin each line with its time, in UTC.")
@data_option
def logs(endpoint: str, follow: bool, variant: str | None, data: Path | None, **shown: Any) -> None:
    """Print what the containers of an endpoint or component wrote.

    Each line begins with the container it comes from: `variant/instance`, and its name in a pipeline. Lines are in
    the order of their times. Logs stay readable after the endpoint failed or was deleted.
    """
    folder = LogFolder(data_folder(data) / "logs")
    streams = list(containers(folder, endpoint, variant))
    if not follow and not streams:
        raise NoLogs(_nothing(folder, endpoint, variant))
    view = View(**shown)
    positions = show_tails(streams, view)
    try:
        while follow:
            for stream in containers(folder, endpoint, variant):
                for event in new_events(stream, positions):
                    if event.timestamp >= view.since and view.matches(event.message):
                        view.print(stream, event)
            time.sleep(POLL)
    except KeyboardInterrupt:
        return  # how following ends: not a failure


def containers(folder: LogFolder, name: str, variant: str | None = None) -> list[Stream]:
    """Give the streams of an endpoint's or a component's containers, the one that was written to last at the end."""
    groups = (log_group(name), component_log_group(name))
    prefix = f"{variant}/" if variant is not None else ""
    found = (stream for group in groups for stream in folder.streams(group, prefix))
    return sorted(found, key=lambda stream: (stream.last_timestamp or stream.created, stream.name))


def show_tails(streams: Sequence[Stream], view: View) -> dict[str, int]:
    """Print the last events of each stream, all by their times; give the positions behind all that there are."""
    positions = {stream.name: next((event.after for event in stream.events_before()), 0) for stream in streams}
    tails = [_tail(stream, view) for stream in streams]
    for stream, event in heapq.merge(*tails, key=lambda each: each[1].timestamp):
        view.print(stream, event)
    return positions


def _tail(stream: Stream, view: View) -> list[tuple[Stream, Event]]:
    matching = (event for event in stream.events_before(within=Range(view.since)) if view.matches(event.message))
    return [(stream, event) for event in reversed(list(islice(matching, view.count)))]


def new_events(stream: Stream, positions: dict[str, int]) -> Iterator[Event]:
    """Give what was written since a position, and move the position."""
    position = positions.get(stream.name, 0)
    if stream.size < position:  # emptied meanwhile
        position = 0
    for event in stream.events(position):
        positions[stream.name] = event.after
        yield event


def _nothing(folder: LogFolder, endpoint: str, variant: str | None) -> str:
    what = f"variant {variant} of endpoint {endpoint}" if variant else f"endpoint {endpoint}"
    known = [group.name.removeprefix(log_group("")) for group in folder.groups(log_group(""))]
    where = folder.path(log_group(endpoint), "").parent.parent
    others = f"there are logs of: {', '.join(known)}" if known else "those of a Clary with another folder: --data DIR"
    return f"no logs of {what} under {where}: nothing of it has started yet (clary doctor {endpoint}); {others}"
