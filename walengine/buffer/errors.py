"""Every exception that the buffer raises for an operating error.

The tree::

    Exception
    └── QueueError                      the queue could not do what was asked
        ├── StorageError                the store failed; .unclear: the write may have happened
        │   ├── ObjectTooLargeError     the object exceeds max_bytes; nothing of it was kept
        │   └── DatabaseError           a sink's database failed; .unclear: it may have committed
        ├── FormatError                 bytes of .object are no manifest or batch, from .offset on
        ├── InvalidInputError           what was handed in can be no batch; also a ValueError
        ├── AckOrderError               an ack that skips a sequence, or comes twice
        ├── FencedError                 a newer consumer has taken the queue over
        ├── PairingError                producer and consumer do not mean the same queue
        ├── ManifestLostError           the manifest is gone, or older than one that was seen
        ├── SequenceGapError            batches between the acked and the first listed are missing
        ├── BatchMissingError           a listed batch has no object
        ├── BackpressureError           the buffer is full; nothing of the call was taken
        ├── UnsupportedStoreError       the store does not keep conditions, or cannot be used at all
        └── StaleBatchError             unclear for too long: appending it again could double it

A wrong argument elsewhere is a ``TypeError`` or a ``ValueError``: a mistake in the program, which
no handler of operating errors should swallow.

No message holds a secret or a payload: both end up in logs.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AckOrderError",
    "BackpressureError",
    "BatchMissingError",
    "DatabaseError",
    "FencedError",
    "FormatError",
    "InvalidInputError",
    "ManifestLostError",
    "ObjectTooLargeError",
    "PairingError",
    "QueueError",
    "SequenceGapError",
    "StaleBatchError",
    "StorageError",
    "UnsupportedStoreError",
]


class QueueError(Exception):
    """The queue could not do what was asked; base of the tree.

    Attributes:
        object: Name of the object concerned, where there is one.
        offset: Byte offset in that object, where there is one.
        sequence: Sequence number concerned, where there is one.
    """

    object: str | None
    offset: int | None
    sequence: int | None

    def __init__(
        self,
        message: str,
        *,
        object: str | None = None,  # noqa: A002 (the fact's own name)
        offset: int | None = None,
        sequence: int | None = None,
    ) -> None:
        super().__init__(message)
        self.object = object
        self.offset = offset
        self.sequence = sequence

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with all facts: errors cross process pools."""
        return _rebuild, (type(self), self.args[0], dict(vars(self)))


def _rebuild(kind: type[QueueError], message: str, facts: dict[str, Any]) -> QueueError:
    error = kind(message)
    vars(error).update(facts)  # the notes too, if there are any
    return error


class StorageError(QueueError):
    """The object store failed, or could not be reached.

    Attributes:
        unclear: True if a write may have been applied all the same: read before trying again. False
            if it certainly was not, and for reads.
        errno: Of the system call that failed, where one did.
    """

    unclear: bool
    errno: int | None

    def __init__(
        self, message: str, *, unclear: bool = False, errno: int | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.unclear = unclear
        self.errno = errno


class ObjectTooLargeError(StorageError):
    """The object exceeds the caller's ``max_bytes``; at most that much of it was read.

    Attributes:
        max_bytes: The limit.
    """

    max_bytes: int

    def __init__(self, message: str, *, max_bytes: int = 0, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.max_bytes = max_bytes


class DatabaseError(StorageError):
    """A sink's database failed, or could not be reached.

    If ``unclear``, the transaction may have been committed all the same: the sink looks before it
    writes the next time, so calling it again with the same batch is safe.
    """


class FormatError(QueueError):
    """The bytes of ``object`` are no manifest or batch, from ``offset`` on."""


class InvalidInputError(QueueError, ValueError):
    """What was handed in can be no batch: no entries, too many, too large."""


class AckOrderError(QueueError):
    """An ack that skips a sequence, repeats one, or names one that was never delivered."""


class FencedError(QueueError):
    """A newer consumer has raised the epoch; this one may touch the manifest no more."""


class PairingError(QueueError):
    """Producer, consumer or log do not mean the same queue; the message shows both sides."""


class ManifestLostError(QueueError):
    """The manifest is gone, or its sequence or epoch went back; it is never made anew."""


class SequenceGapError(QueueError):
    """Batches between the last acked sequence and the first listed one are missing."""


class BatchMissingError(QueueError):
    """The manifest lists a batch whose object is not there; ``skip(sequence, reason)`` goes on."""


class BackpressureError(QueueError):
    """The buffer is full; nothing of the call was taken."""


class UnsupportedStoreError(QueueError):
    """The store ignores conditions, is on a network filesystem, or its package is missing."""


class StaleBatchError(QueueError):
    """A batch has been unclear for longer than a sink remembers it; its data is kept."""


for _name in __all__:
    globals()[_name].__module__ = "walengine.buffer"
