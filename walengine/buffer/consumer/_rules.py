"""What a manifest means to a consumer: decisions, without a store in sight."""

from __future__ import annotations

from walengine.buffer.errors import FencedError, PairingError, SequenceGapError
from walengine.buffer.manifest import Manifest

__all__ = ["check_epoch", "check_first", "first_position"]


def first_position(
    manifest: Manifest, last_acked_sequence: int | None, *, allow_gap: bool, queue: str
) -> int:
    """Return the last sequence that counts as acked when a consumer opens; -1 for none.

    Args:
        manifest: The queue; the empty one where there is none.
        last_acked_sequence: What the consumer has stored behind it; None: begin with what is there.
        allow_gap: Accept that batches in between are no longer listed.
        queue: Its name, for messages.

    Raises:
        PairingError: The queue never got that far.
        SequenceGapError: Batches behind it are gone, and that is not allowed.
    """
    first = manifest.sequences.start
    if last_acked_sequence is None:
        return first - 1
    if last_acked_sequence >= manifest.next_sequence:
        raise PairingError(
            f"{queue}: the last acked sequence is {last_acked_sequence}, but the queue's next is "
            f"{manifest.next_sequence}: the position is another queue's, or the manifest was lost "
            "and made anew",
            object=manifest.name,
            sequence=last_acked_sequence,
        )
    if last_acked_sequence >= first - 1:
        return last_acked_sequence
    if allow_gap:
        return first - 1
    raise SequenceGapError(
        f"{queue}: the last acked sequence is {last_acked_sequence}, but the first batch listed is "
        f"{first}: sequences {last_acked_sequence + 1} to {first - 1} were acked by somebody else, "
        "or what stores the position was restored from a backup; allow_gap=True goes on without "
        "them",
        object=manifest.name,
        sequence=last_acked_sequence + 1,
    )


def check_epoch(manifest: Manifest, epoch: int, *, queue: str) -> None:
    """Check that the manifest is still that of the consumer that raised it to this epoch.

    Raises:
        FencedError: It is a newer consumer's.
    """
    if manifest.epoch != epoch:
        raise FencedError(
            f"{queue}: a newer consumer has taken the queue over: its epoch is {manifest.epoch}, "
            f"this one's {epoch}; what was delivered and not acked goes to the newer one",
            object=manifest.name,
        )


def check_first(manifest: Manifest, allowed_through: int, *, queue: str) -> None:
    """Check that nobody but this consumer took batches off the queue.

    Args:
        manifest: The queue, with this consumer's epoch.
        allowed_through: The last sequence that this consumer has asked to be taken off.
        queue: Its name, for messages.

    Raises:
        SequenceGapError: More is gone.
    """
    first = manifest.sequences.start
    if first > allowed_through + 1:
        raise SequenceGapError(
            f"{queue}: the first batch listed is {first}, but nothing behind {allowed_through} was "
            "acked: somebody else changed the manifest without taking the queue over",
            object=manifest.name,
            sequence=allowed_through + 1,
        )
