"""What the workers of one server know of each other: a byte each, in memory that they share across the fork."""

from __future__ import annotations

import mmap

LOADING, IDLE, BUSY = range(3)


class Slot:
    """One worker's byte. Written by that worker alone, read by all: a stale read costs one connection, no more."""

    def __init__(self, board: mmap.mmap, index: int) -> None:
        self._board = board
        self.index = index
        self._board[index] = LOADING

    def idle(self) -> None:
        self._board[self.index] = IDLE

    def busy(self) -> None:
        self._board[self.index] = BUSY

    @property
    def loaded(self) -> bool:
        return self._board[self.index] != LOADING

    def others_idle(self) -> bool:
        return any(state == IDLE for index, state in enumerate(self._board[:]) if index != self.index)


class Scoreboard:
    """The bytes of all workers."""

    def __init__(self, workers: int) -> None:
        self._board = mmap.mmap(-1, workers)
        self._workers = workers

    def take(self, taken: set[int]) -> Slot:
        """Give the first slot that no living worker holds."""
        return Slot(self._board, next(index for index in range(self._workers) if index not in taken))
