"""Logging, in one place: events with fields, readable on a terminal, JSON elsewhere. Secrets never reach it.

structlog is imported when the first logger is asked for: that takes longer than all else with which the agent of a
transform job starts, and agents have seldom anything to say.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

_SECRETS = ("secret", "password", "authorization", "token", "signature")
_wanted: list[tuple[str, str, TextIO]] = []
"""How logging is to be set up, as long as there is no logger."""


def _hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: "***" if any(word in key.lower() for word in _SECRETS) else value for key, value in event.items()}


def set_up(level: str, process: str, stream: TextIO = sys.stderr) -> None:
    """Log events of at least `level` to the stream; `process` (control, gateway) is a field of each."""
    _wanted[:] = [(level, process, stream)]
    if "structlog" in sys.modules:
        _configure()


def _configure() -> None:
    import structlog

    if not _wanted:
        return
    level, process, stream = _wanted.pop()
    terminal = stream.isatty()
    renderer = structlog.dev.ConsoleRenderer(colors=True) if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _hide_secrets,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(process=process)


def logger(area: str) -> FilteringBoundLogger:
    """Give the logger of one area of the code (`reconcile`, `gateway`)."""
    import structlog

    _configure()
    lazy: FilteringBoundLogger = structlog.get_logger(area=area)  # configured at its first event, not at import
    return lazy
