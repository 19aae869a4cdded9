"""What both writers let their callers look at, in the same words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from walengine.errors import WalError
from walengine.types import Lsn


class Looking(ABC):
    """Base of the writers: path, limits, and the C writer's position."""

    _path: str
    _batch_bytes_max: int

    @abstractmethod
    def _position(self) -> Any:
        """Return the struct wal_position of this moment."""

    def max_batch_bytes(self) -> int:
        """Return the staged bytes at which ``append_batched`` flushes by itself."""
        return self._batch_bytes_max

    def size(self) -> int:
        """Return the bytes of the frames from the first to the last LSN handed over."""
        return int(self._position().frame_bytes)

    @property
    def path(self) -> Path:
        """Directory of the log."""
        return Path(self._path)

    @property
    def first_lsn(self) -> Lsn:
        """Of the oldest record kept; that of the next record where there is none."""
        return int(self._position().first_lsn)


def note_closing(error: BaseException, problem: WalError) -> None:
    """Note on a block's error that closing failed too, unless it is the same."""
    if problem is not error:
        error.add_note(f"closing the log failed too: {problem}")
