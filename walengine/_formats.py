"""Records as bytes for a pipe, a file or a person: what ``walengine replay`` writes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter

from walengine.errors import WalError
from walengine.types import Record

PREVIEW_CHARACTERS = 100
PART_BYTES = 1 << 20
RECORD_OVERHEAD_BYTES = 64  # so that a part of empty records ends too

Encoder = Callable[[Iterable[Record]], bytes]


def parts(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield records about a mebibyte at a time; those before damage come before the error."""
    part: list[Record] = []
    size = 0
    try:
        for record in records:
            part.append(record)
            size += len(record[1]) + RECORD_OVERHEAD_BYTES
            if size >= PART_BYTES:
                yield part
                part, size = [], 0
    except WalError as error:
        yield part
        raise error from None
    yield part


def raw(records: Iterable[Record]) -> bytes:
    """Return the records' bytes, back to back."""
    return b"".join(map(itemgetter(1), records))


def length_prefixed(records: Iterable[Record]) -> bytes:
    """Return each record behind its length, u32 little-endian."""
    return b"".join(len(data).to_bytes(4, "little") + data for _, data, _ in records)


def jsonl(records: Iterable[Record]) -> bytes:
    """Return one JSON object a line; data that is no UTF-8 goes in base64."""
    return "".join(_json_line(record) for record in records).encode()


def _json_line(record: Record) -> str:
    line: dict[str, object] = {"lsn": record.lsn}
    try:
        line["data"] = record.data.decode()
    except UnicodeDecodeError:
        line["data_base64"] = base64.b64encode(record.data).decode("ascii")
    if record.crc32c is not None:
        line["crc32c"] = record.crc32c
    return json.dumps(line, ensure_ascii=False) + "\n"


def human(records: Iterable[Record]) -> bytes:
    """Return one line a record: LSN, size, and its first characters, made safe for a terminal."""
    return "".join(_human_line(record) for record in records).encode()


def _human_line(record: Record) -> str:
    text = record.data[: 4 * PREVIEW_CHARACTERS].decode("utf-8", "backslashreplace")
    text = text.removesuffix("\n")
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:PREVIEW_CHARACTERS])
    more = "..." if len(text) > PREVIEW_CHARACTERS else ""
    return f"{record.lsn:>12}  {len(record.data):>8} B  {safe}{more}\n"


ENCODERS: dict[str, Encoder] = {
    "raw": raw,
    "human": human,
    "jsonl": jsonl,
    "length-prefixed": length_prefixed,
}
