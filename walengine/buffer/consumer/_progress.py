"""How far a consumer is: what was delivered, acked, skipped, and asked to be taken off the queue.

    listed before   |  acked  |  delivered, not acked  |  not delivered
                    dequeued  acked                    cursor

Sequences are acked in order. A skipped one is passed over by the next ack, and not before: had it
been taken off on its own, a sink that stores the position of what it wrote would find a gap.
"""

from __future__ import annotations

from walengine.buffer.errors import AckOrderError

__all__ = ["DEQUEUE_INTERVAL", "Progress"]

DEQUEUE_INTERVAL = 100
"""Acked batches are taken off the manifest when there are so many of them."""


class Progress:
    """Positions of one consumer; plain numbers and rules.

    Attributes:
        cursor: The next sequence to deliver.
        acked: The last sequence acked, -1 for none.
        dequeued: The last one known to be off the manifest.
        asked: The last one ever asked to be taken off; a request of unclear outcome may still come.
    """

    __slots__ = ("_skipped", "acked", "asked", "cursor", "dequeued")

    def __init__(self, acked: int, first_listed: int) -> None:
        self.acked = acked
        self.cursor = acked + 1
        self.dequeued = self.asked = first_listed - 1
        self._skipped: set[int] = set()

    @property
    def unacked(self) -> int:
        """How many were delivered or skipped and are not acked."""
        return self.cursor - 1 - self.acked

    @property
    def is_dequeue_due(self) -> bool:
        """Whether acked batches are still listed."""
        return self.dequeued < self.acked

    def deliver(self, through_sequence: int) -> None:
        """Move the cursor behind this sequence."""
        self.cursor = max(self.cursor, through_sequence + 1)

    def skip(self, sequence: int) -> None:
        """Pass a sequence over.

        Raises:
            AckOrderError: It is neither the next to be delivered nor delivered and not acked.
        """
        if not self.acked < sequence <= self.cursor:
            raise AckOrderError(
                f"skip({sequence}): only {self.acked + 1} to {self.cursor} can be skipped: what is "
                "delivered and not acked, and the next one",
                sequence=sequence,
            )
        self._skipped.add(sequence)
        self.deliver(sequence)

    def check_ack(self, sequence: int) -> None:
        """Check that this is the next to be acked.

        Raises:
            AckOrderError: It is not.
        """
        expected = self.acked + 1
        while expected < sequence and expected in self._skipped:
            expected += 1
        self._check_delivered("ack", sequence)
        if sequence != expected:
            raise AckOrderError(
                f"ack({sequence}): the next to be acked is {expected}; to ack several at once, "
                "ack_through()",
                sequence=sequence,
            )

    def check_ack_through(self, sequence: int) -> None:
        """Check that everything up to here may be acked.

        Raises:
            AckOrderError: It is acked already, or was not delivered.
        """
        self._check_delivered("ack_through", sequence)

    def _check_delivered(self, call: str, sequence: int) -> None:
        if sequence <= self.acked:
            raise AckOrderError(
                f"{call}({sequence}): everything up to {self.acked} is acked already",
                sequence=sequence,
            )
        if sequence >= self.cursor:
            raise AckOrderError(
                f"{call}({sequence}): it was not delivered; the next to be delivered is "
                f"{self.cursor}",
                sequence=sequence,
            )

    def is_dequeue_wanted(self, sequence: int) -> bool:
        """Tell whether acking this sequence shall take what is acked off the manifest."""
        return sequence - self.dequeued >= DEQUEUE_INTERVAL

    def ask(self, through_sequence: int) -> None:
        """Note that a request to take these off is about to be sent."""
        self.asked = max(self.asked, through_sequence)

    def ack(self, sequence: int) -> int:
        """Note that everything up to here is acked; return how many that were."""
        count = sequence - self.acked
        self.acked = sequence
        self._skipped = {skipped for skipped in self._skipped if skipped > sequence}
        return count

    def dequeue(self, through_sequence: int) -> None:
        """Note that everything up to here is off the manifest."""
        self.dequeued = max(self.dequeued, through_sequence)
