"""Logging, in one place: events with fields, readable on a terminal, JSON elsewhere. Secrets never reach it."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

_SECRETS = ("secret", "password", "authorization", "token", "signature")


def _hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: "***" if any(word in key.lower() for word in _SECRETS) else value for key, value in event.items()}


def set_up(level: str, process: str, stream: TextIO = sys.stderr) -> None:
    """Log events of at least `level` to the stream; `process` (control, gateway) is a field of each."""
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
    lazy: FilteringBoundLogger = structlog.get_logger(area=area)  # configured at its first event, not at import
    return lazy
