"""Writers that outlive their welcome: interpreter exit, and the child side of a fork.

Open writers are kept in a weak set, so that nothing here keeps one alive. Their C handles are kept
for as long as they live: the collector finalises a cycle's objects in any order, and a handle that
it found in one would be freed before the writer had closed it.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from typing import Protocol
from weakref import WeakSet

from walengine.errors import WalError

log = logging.getLogger("walengine")


class Open(Protocol):
    """What a writer offers to its undertaker."""

    def close_at_exit(self) -> int:
        """Close what is still open; return how many records were staged."""
        ...

    def after_fork_in_child(self) -> None:
        """Become a handle that refuses."""
        ...


open_writers: WeakSet[Open] = WeakSet()
handles: dict[int, object] = {}  # by the id of their writer


def collect(writer: Open, path: str, staged: int | None) -> None:
    """Do what a writer's ``__del__`` owes.

    Args:
        writer: The one that was forgotten.
        path: Directory of its log.
        staged: Records that it holds; None: it is not open, and there is nothing to warn of.
    """
    try:
        if staged is not None:
            warnings.warn(
                f"unclosed log {path!r} with {staged} staged records",
                ResourceWarning,
                stacklevel=3,
                source=writer,
            )
    finally:  # the warning may be an error
        try:
            writer.close_at_exit()
        finally:
            handles.pop(id(writer), None)


def _at_exit() -> None:
    """Flush and close what the program left open, and say so once."""
    staged = 0
    for writer in list(open_writers):
        try:
            staged += writer.close_at_exit()
        except WalError as error:
            # The message says it all; a traceback would only show this loop.
            log.error("at interpreter exit: %s", error)  # noqa: TRY400
    if staged:
        warnings.warn(
            f"walengine: {staged} staged records were flushed at interpreter exit; "
            "call close() or flush_batch(), or use the writer in a with block",
            RuntimeWarning,
            stacklevel=1,
        )


def _in_child() -> None:
    for writer in list(open_writers):
        writer.after_fork_in_child()
    open_writers.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
