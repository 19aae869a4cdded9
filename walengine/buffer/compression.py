"""How a batch's entries may be compressed; a file of its own, for configurations need no codec."""

from __future__ import annotations

import enum

__all__ = ["CompressionType"]


class CompressionType(enum.Enum):
    """What the entries of a batch go through, all together; the values are OpenData's words."""

    NONE = "none"
    ZSTD = "zstd"


CompressionType.__module__ = "walengine.buffer"
