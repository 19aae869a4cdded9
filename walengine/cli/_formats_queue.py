"""Batches as bytes for a pipe: what ``buffer consume`` writes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from walengine.buffer import ConsumedBatch
from walengine.buffer.database import covered

__all__ = ["FORMATS", "Format"]

Format = Callable[[ConsumedBatch], bytes]


def raw(batch: ConsumedBatch) -> bytes:
    """Return the entries' bytes, back to back."""
    return b"".join(batch.entries)


def length_prefixed(batch: ConsumedBatch) -> bytes:
    """Return each entry behind its length, u32 little-endian."""
    return b"".join(len(entry).to_bytes(4, "little") + entry for entry in batch.entries)


def jsonl(batch: ConsumedBatch) -> bytes:
    """Return one JSON object a line; what is no UTF-8 goes in base64."""
    lines = []
    for index, (entry, metadata) in enumerate(covered(batch.entries, batch.metadata)):
        line: dict[str, Any] = {"sequence": batch.sequence, "index": index}
        if metadata is not None:
            line["ingestion_time_ms"] = metadata.ingestion_time_ms
            if metadata.payload:
                _put(line, "metadata", metadata.payload)
        _put(line, "data", entry)
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _put(line: dict[str, Any], name: str, data: bytes) -> None:
    try:
        line[name] = data.decode()
    except UnicodeDecodeError:
        line[f"{name}_base64"] = base64.b64encode(data).decode("ascii")


FORMATS: dict[str, Format] = {"raw": raw, "jsonl": jsonl, "length-prefixed": length_prefixed}
