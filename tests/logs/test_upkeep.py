"""Times while Clary looks, and the bounds of size and age."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from clary.logs import holes
from clary.logs.folder import LogFolder
from clary.logs.lines import head
from clary.logs.upkeep import Upkeep

DAY = 86_400.0
MIB = 1024 * 1024


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> LogFolder:
    return LogFolder(tmp_path, clock)


@pytest.fixture
def upkeep(folder: LogFolder, clock: Clock) -> Upkeep:
    return Upkeep(folder, MIB, 14, clock)


def timed(folder: LogFolder, stream: str = "s") -> list[tuple[str, float]]:
    found = folder.stream("/g", stream)
    assert found is not None
    return [(event.message, event.timestamp / 1000) for event in found.events()]


def test_lines_have_the_time_of_the_look_that_found_them(folder: LogFolder, upkeep: Upkeep, clock: Clock) -> None:
    path = folder.ensure("/g", "s")
    start = clock.now
    upkeep.look()
    for step in range(3):
        with path.open("a") as process:
            process.write(f"line {step}\n")
        clock.now += 0.5
        upkeep.look()
    assert timed(folder) == [("line 0", start + 0.5), ("line 1", start + 1), ("line 2", start + 1.5)]


def test_what_was_written_while_clary_was_down_has_the_time_of_the_last_write(
    folder: LogFolder, upkeep: Upkeep, clock: Clock
) -> None:
    path = folder.ensure("/g", "s")
    path.write_text("alone\n")
    os.utime(path, (clock.now + 60,) * 2)
    clock.now += 3600
    upkeep.look()
    assert timed(folder) == [("alone", clock.now - 3540)]
    path.write_text("alone\nseen\n")
    os.utime(path, (clock.now - 100,) * 2)
    clock.now += 1
    upkeep.look()
    assert timed(folder)[1] == ("seen", clock.now), "later looks go by their own time"


def test_times_that_were_shown_do_not_change_and_new_ones_are_newer(
    folder: LogFolder, upkeep: Upkeep, clock: Clock
) -> None:
    path = folder.ensure("/g", "s")
    shown: list[tuple[str, float]] = []
    with path.open("ab", buffering=0) as process:
        for step in range(20):
            process.write(b"line %d\npart" % step)
            clock.now += 0.5
            upkeep.look()
            found = timed(folder)
            assert found[: len(shown)] == shown
            assert all(each[1] > shown[-1][1] for each in found[len(shown) :] if shown)
            shown = found


def test_a_stream_keeps_its_newest_megabyte_under_a_process_that_goes_on_writing(
    folder: LogFolder, upkeep: Upkeep
) -> None:
    path = folder.ensure("/g", "s")
    line = b"x" * 99 + b"\n"
    with path.open("ab", buffering=0) as process:
        for round in range(5):
            process.write(line * 10_000)
            upkeep.look()
            kept = path.stat().st_size - head(path)
            assert path.stat().st_size == (round + 1) * 1_000_000, "positions do not move"
            assert kept <= MIB and (round == 0 or kept > MIB * 0.8)
    assert head(path) % 100 == 0, "cut between lines"
    assert path.stat().st_blocks * 512 < 1.3 * MIB
    assert len(timed(folder)) == kept // 100


def test_a_file_system_without_holes_keeps_the_bound_and_the_times(
    folder: LogFolder, upkeep: Upkeep, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holes, "_punch", lambda descriptor, length: False)
    path = folder.ensure("/g", "s")
    with path.open("ab", buffering=0) as process:
        for _ in range(3):
            process.write((b"x" * 99 + b"\n") * 9_000)
            clock.now += 1
            upkeep.look()
        process.write(b"last\n")
        clock.now += 1
        upkeep.look()
    assert path.stat().st_size < 1.3 * MIB
    found = timed(folder)
    assert [message[:4] for message, _ in found[-2:]] == ["xxxx", "last"]
    assert {clock.now - at for _, at in found} == {0, 1, 2} and found[-2][1] == clock.now - 1


def test_a_single_endless_line_is_bounded_too(folder: LogFolder, upkeep: Upkeep) -> None:
    path = folder.ensure("/g", "s")
    path.write_bytes(b"x" * 5 * MIB)
    upkeep.look()
    assert path.stat().st_size - head(path) <= 2 * MIB


def test_old_lines_old_streams_and_their_groups_go(folder: LogFolder, upkeep: Upkeep, clock: Clock) -> None:
    with folder.writer("/g", "s") as writer, folder.writer("/old", "s") as old:
        old.write(int(clock.now * 1000), b"old")
        for day in range(20):
            writer.write(int((clock.now + day * DAY) * 1000), b"day %d" % day)
    clock.now += 20 * DAY
    upkeep.sweep()
    assert [message for message, _ in timed(folder)] == [f"day {day}" for day in range(6, 20)]
    assert [group.name for group in folder.groups()] == ["/g"]


def test_a_groups_own_retention_counts(folder: LogFolder, upkeep: Upkeep, clock: Clock) -> None:
    for name, days in (("/short", 1), ("/long", 365)):
        folder.create_group(name, {})
        group = folder.group(name)
        assert group is not None
        folder.set_retention(group, days)
        with folder.writer(name, "s") as writer:
            writer.write(int(clock.now * 1000), b"line")
    clock.now += 30 * DAY
    upkeep.sweep()
    assert [group.name for group in folder.groups()] == ["/long", "/short"], "who makes a group deletes it"
    assert (folder.streams("/short"), len(folder.streams("/long"))) == ([], 1)


def test_a_silent_process_keeps_its_file(folder: LogFolder, upkeep: Upkeep, clock: Clock) -> None:
    path = folder.ensure("/g", "s")
    with path.open("ab", buffering=0) as process:
        process.write(b"started\n")
        upkeep.look()
        clock.now += 30 * DAY
        upkeep.sweep()
        assert folder.stream("/g", "s") is None
        process.write(b"still here\n")
        upkeep.look()
        assert [message for message, _ in timed(folder)] == ["still here"]


def test_a_file_that_somebody_emptied_starts_anew(folder: LogFolder, upkeep: Upkeep, clock: Clock) -> None:
    path = folder.ensure("/g", "s")
    path.write_text("a long first line\n")
    upkeep.look()
    path.write_text("cut\n")
    clock.now += 5
    upkeep.look()
    assert timed(folder) == [("cut", clock.now)]


async def test_trouble_with_the_disk_is_told_once_and_does_not_end_it(
    upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    looks = 0

    def full() -> None:
        nonlocal looks
        looks += 1
        raise OSError("disk full")

    async def at_once(_: float, sleep: object = asyncio.sleep) -> None:
        if looks == 3:
            raise asyncio.CancelledError
        await sleep(0)  # type: ignore[operator]

    monkeypatch.setattr(upkeep, "look", full)
    monkeypatch.setattr("clary.logs.upkeep.asyncio.sleep", at_once)
    with capture_logs() as told, pytest.raises(asyncio.CancelledError):
        await upkeep.run()
    assert looks == 3 and [event["reason"] for event in told] == ["disk full"]
