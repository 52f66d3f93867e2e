"""Giving back the space of what lies at the beginning of a file that others append to."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_NOT_HERE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def cut(file: Path, before: int) -> int:
    """Take away the bytes before a position; give where the first byte that was kept is now.

    A hole leaves every other byte where it is, so nothing races with whoever appends and positions stay what they are.
    A file system without holes gets the copy of the end after a truncation: what is written between the two is lost
    or comes before it, and positions that were handed out lead elsewhere. A writer's descriptor allows nothing better.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND)
    try:
        if _punch(descriptor, before):
            return before
        kept = os.pread(descriptor, os.fstat(descriptor).st_size - before, before)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, kept)
        return 0
    finally:
        os.close(descriptor)


def _punch(descriptor: int, length: int) -> bool:
    """Make a hole of the first bytes; give whether the file system can."""
    mode = _KEEP_SIZE | _PUNCH_HOLE
    result = _fallocate(descriptor, mode, 0, length)
    if result == 0:
        return True
    if ctypes.get_errno() in _NOT_HERE:
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> int:
    """Call fallocate(2), of which the standard library has only the POSIX half."""
    call = ctypes.CDLL(None, use_errno=True).fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return int(call(descriptor, mode, offset, length))
