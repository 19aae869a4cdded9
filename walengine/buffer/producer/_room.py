"""Back-pressure: whether one more call may be accepted now.

Three things push back. Calls that wait for a place in the open batch: it is full and every slot of
the pipeline is taken. Bytes that are not durable yet, wherever they are. And a manifest that has
no room for the next batch, since every swap writes all of it anew.
"""

from __future__ import annotations

from walengine.buffer.producer._input import Input

__all__ = ["Room"]


class Room:
    """What is held against what may be held.

    Args:
        max_inputs: Calls that may wait for the open batch.
        max_bytes: All that is accepted and neither durable nor failed.

    Attributes:
        inputs: Calls that wait for the open batch.
        bytes: All that is held.
        manifest_is_full: The next batch does not fit into the manifest.
    """

    __slots__ = ("bytes", "inputs", "manifest_is_full", "max_bytes", "max_inputs")

    def __init__(self, max_inputs: int, max_bytes: int) -> None:
        self.max_inputs = max_inputs
        self.max_bytes = max_bytes
        self.inputs = 0
        self.bytes = 0
        self.manifest_is_full = False

    def has(self, call: Input) -> bool:
        """Tell whether the call may be accepted."""
        return (
            self.inputs < self.max_inputs
            and self.bytes + call.size_bytes <= self.max_bytes
            and not self.manifest_is_full
        )

    def lacks_bytes(self, call: Input) -> bool:
        """Tell whether bytes are what the call waits for: then the open batch is sealed at once."""
        return self.bytes + call.size_bytes > self.max_bytes

    def reset(self, held_bytes: int) -> None:
        """Everything but so many bytes was given up."""
        self.inputs = 0
        self.bytes = held_bytes
        self.manifest_is_full = False

    def why_not(self, call: Input) -> str:
        """Return what there is no room for, for messages."""
        if self.manifest_is_full:
            return "the manifest has max_manifest_bytes: the consumer is behind"
        if self.lacks_bytes(call):
            return f"{self.bytes} of max_buffered_bytes={self.max_bytes} are not durable yet"
        return f"max_buffered_inputs={self.max_inputs} calls wait for a place in a batch"
