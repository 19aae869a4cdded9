"""Which batches the next append lists: all in front that are stored, fresh, and fit.

Order is a promise, so a group is always the front of the line. A batch in front of it that is still
on its way holds up those behind it; a name that has become too old is renewed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from walengine.buffer.producer._forming import Batch

__all__ = ["Group", "form_group"]


class Group(NamedTuple):
    """What the next append is to do.

    Attributes:
        batches: To be listed, in order.
        stale: Stored batches of the whole line whose names are too old to be listed.
        is_held_up: The manifest has no room for the first one.
    """

    batches: list[Batch]
    stale: list[Batch]
    is_held_up: bool


def form_group(line: Iterable[Batch], room_bytes: int, is_fresh: Callable[[Batch], bool]) -> Group:
    """Choose.

    Args:
        line: All batches that are sealed and not listed, in order.
        room_bytes: How much larger the manifest may become.
        is_fresh: Whether a stored batch's name may be listed now.
    """
    batches: list[Batch] = []
    stale: list[Batch] = []
    is_open, is_held_up = True, False
    for batch in line:
        if not batch.is_stored:
            is_open = False
            continue
        if not is_fresh(batch):
            stale.append(batch)
            is_open = False
        elif is_open:
            room_bytes -= batch.manifest_bytes()
            if room_bytes < 0:
                is_open, is_held_up = False, not batches
            else:
                batches.append(batch)
    return Group(batches, stale, is_held_up)
