"""Steps that take a while: one line for each when it ends, with its time; on a terminal it moves until then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

MIB = 1024 * 1024
WIDTH = 28
SIGN_OF_LIFE = 10.0


@dataclass(slots=True)
class Step:
    """A step that is under way."""

    title: str
    show: Callable[[str, float | None], None]
    detail: str = ""
    seconds: float = 0.0

    def say(self, detail: str, done: float | None = None) -> None:
        """Tell what it is doing now; `done` is the finished part of it, 0 to 1."""
        self.detail = detail
        self.show(detail, done)


@dataclass(slots=True)
class Steps:
    """Shows steps and remembers how long each took."""

    console: Console
    taken: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while the block runs, and its line when it ends, well or not."""
        started = time.monotonic()
        step = Step(title, lambda detail, done: None)
        mark, style = "✓", "green"
        try:
            with self._live(title) as step.show:
                yield step
        except BaseException:
            mark, style = "✗", "red"
            raise
        finally:
            step.seconds = time.monotonic() - started
            self.taken.append(step)
            self._line(Text(mark, style), step)

    def _line(self, mark: Text, step: Step) -> None:
        line = Text.assemble(mark, f" {step.title:<{WIDTH}}", (f"{step.seconds:7.2f} s", "bold"), f"  {step.detail}")
        self.console.print(line, soft_wrap=True)

    @contextmanager
    def _live(self, title: str) -> Iterator[Callable[[str, float | None], None]]:
        if not self.console.is_terminal:
            with _SignsOfLife(self.console, title) as signs:
                yield signs
            return
        columns = (SpinnerColumn(), TextColumn(f"{{task.description:<{WIDTH}}}"), BarColumn(20), TimeElapsedColumn())
        with Progress(*columns, TextColumn("{task.fields[detail]}"), console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=None, detail="")
            yield lambda detail, done: _move(progress, task, detail, done)


def _move(progress: Progress, task: TaskID, detail: str, done: float | None) -> None:
    progress.update(task, detail=detail, total=None if done is None else 1.0, completed=done or 0.0)


class _SignsOfLife:
    """Without a terminal a long step still says now and then what it does, also while it is blocked in one call."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._text = title
        self._title = title
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> _SignsOfLife:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def __call__(self, detail: str, done: float | None) -> None:
        part = "" if done is None else f" {done:.0%}"
        self._text = f"{self._title}:{part} {detail}"

    def _beat(self) -> None:
        started = time.monotonic()
        while not self._ended.wait(SIGN_OF_LIFE):
            seconds = time.monotonic() - started
            self._console.print(f"  {seconds:.0f} s  {self._text}", soft_wrap=True, markup=False, highlight=False)


def size(count: int) -> str:
    """Write a number of bytes for people: `3.4 MiB`, `512 B`."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < MIB else f"{count / MIB:.1f} MiB"
