"""A small language for damaged logs: build one, damage it, look at it.

Build: Log and Segment of golden/format1.py tell a log as a story; nothing of walengine is in it.
Damage: the verbs below change files of a log in place.
Look: look() opens a directory with every reader of the engine and says what came of it, so that a
test reads as one sentence:

    log, tail = five_records()
    tail.seal()
    assert look(log.write(tmp_path / "log")).is_(verdict="clean", case="SEALED", last=5)
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from golden.format1 import (
    BLOCK,
    FRAMES_OFFSET,
    SEGMENT_BYTES,
    TYPE_DATA,
    Log,
    Predecessor,
    Segment,
    data_payload,
    segment_name,
)

import walengine

__all__ = [
    "BLOCK",
    "FRAMES_OFFSET",
    "SEGMENT_BYTES",
    "SMALL",
    "TYPE_DATA",
    "Log",
    "Look",
    "Predecessor",
    "Segment",
    "append_after",
    "assert_both_refuse",
    "assert_corrupt_behind",
    "assert_goes_on",
    "assert_refused",
    "case_name",
    "cut",
    "data_payload",
    "five_records",
    "flip",
    "look",
    "look_capped",
    "more",
    "overwrite",
    "private_copy",
    "read_all",
    "read_batches",
    "read_records",
    "segment_name",
    "text",
    "texts",
    "zero",
]

SMALL = walengine.WalConfig(segment_bytes=SEGMENT_BYTES, max_record_bytes=(1 << 20) - 8)
MIB = 1 << 20
NEXT_STEP = re.compile(r"verify|repair|restore|salvage|backup|move it away", re.IGNORECASE)


# ---- build ---------------------------------------------------------------------------------------


def text(lsn: int) -> bytes:
    return b"record %d" % lsn


def texts(first: int, last: int) -> list[tuple[int, bytes]]:
    return [(lsn, text(lsn)) for lsn in range(first, last + 1)]


def more(segment: Segment, count: int = 1, flags: int = 0) -> Segment:
    """One DATA frame with the next count records."""
    return segment.data(*(text(segment.lsn + i) for i in range(count)), flags=flags)


def five_records(**options: object) -> tuple[Log, Segment]:
    """A log of one segment: records 1 to 5 in two frames, all durable."""
    log = Log()
    tail = log.segment(**options)
    more(more(tail, 2), 3).sync()
    return log, tail


# ---- damage --------------------------------------------------------------------------------------


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of one byte."""
    data = path.read_bytes()[offset]
    overwrite(path, offset, bytes([data ^ 1 << bit]))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def zero(path: Path, offset: int, count: int) -> None:
    overwrite(path, offset, bytes(count))


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def private_copy(source: Path, target: Path) -> Path:
    """A copy that a writer accepts, whatever the umask of the checkout was."""
    shutil.copytree(source, target)
    target.chmod(0o700)
    for path in target.iterdir():
        path.chmod(0o600)
    return target


# ---- look ----------------------------------------------------------------------------------------


@dataclass
class Look:
    """What the engine says of a directory."""

    verdict: str
    case: str
    report: walengine.RecoveryReport | None
    records: list[tuple[int, bytes]]
    error: walengine.WalError | None  # that replay ended with

    @property
    def last(self) -> int | None:
        return self.report.last_lsn if self.report else None

    def is_(self, *, verdict: str, case: str, last: int) -> bool:
        """Compare, and leave pytest something to show when it differs."""
        found = (self.verdict, self.case, self.last)
        assert found == (verdict, case, last), f"{found}: {self.error or self.report}"
        return True

    def message(self) -> str:
        assert self.error is not None, "replay met no error"
        return str(self.error)


def case_name(decision: str) -> str:
    """A decision as enum wal_case spells it."""
    return str(decision).upper().replace("-", "_").replace(" ", "_")


def read_records(path: Path) -> tuple[list[tuple[int, bytes]], walengine.WalError | None]:
    """Every record before damage, and the error that damage raised."""
    records = []
    try:
        for record in walengine.replay(path):
            records.append((record.lsn, record.data))  # noqa: PERF401 (an error keeps these)
    except walengine.WalError as error:
        return records, error
    return records, None


def read_batches(path: Path) -> tuple[list[tuple[int, bytes]], walengine.WalError | None]:
    """The same from batches, cut where their tables say."""
    records: list[tuple[int, bytes]] = []
    try:
        with walengine.WalReader(path) as reader:
            for batch in reader.batches():
                data = bytes(batch.data)
                ends = [a + b for a, b in zip(batch.offsets, batch.lengths, strict=True)]
                cut_out = [data[a:b] for a, b in zip(batch.offsets, ends, strict=True)]
                records += zip(batch.lsns, cut_out, strict=True)
    except walengine.WalError as error:
        return records, error
    return records, None


def read_all(path: Path) -> tuple[list[tuple[int, bytes]], walengine.WalError | None]:
    """Every record before damage, and its error; records and batches have to agree about both."""
    records, error = read_records(path)
    from_batches, its_error = read_batches(path)
    assert from_batches == records
    assert facts_of(its_error) == facts_of(error)
    return records, error


def facts_of(error: walengine.WalError | None) -> dict[str, object]:
    """What an error says, but for how long it took to find out."""
    facts = {"repr": repr(error)} | getattr(error, "__dict__", {})
    if facts.get("report"):
        facts["report"] = dataclasses.replace(facts["report"], duration_us=0)
    return facts


def look(path: Path) -> Look:
    """Recover and replay; never change anything."""
    report: walengine.RecoveryReport | None
    try:
        report = walengine.recover(path)
    except walengine.WalCorruptionError as error:
        report = error.report  # type: ignore[assignment]
    records, error = read_all(path)
    if report is None:
        return Look("error", "", None, records, error)
    return Look(str(report.verdict), case_name(report.decision), report, records, error)


def append_after(path: Path, data: bytes) -> int:
    """Open the log for writing, append one record, close it; the record's LSN."""
    with walengine.PortableWalWriter(path, SMALL) as wal:
        lsn = wal.append(data)
        wal.sync()
    return lsn


def assert_goes_on(log: Path, kept: int) -> None:
    """The next append follows the records that were kept, and nothing dropped comes back."""
    lsn = append_after(log, b"after")
    assert lsn == kept + 1
    assert read_all(log) == ([*texts(1, kept), (lsn, b"after")], None)
    append_after(log, b"again")
    assert read_all(log)[0] == [*texts(1, kept), (lsn, b"after"), (lsn + 1, b"again")]


def assert_refused(log: Path, case: str, *parts: str) -> None:
    """Writer and verify call it corrupt; the message names path, place and what to do next."""
    with pytest.raises(walengine.WalCorruptionError) as caught:
        walengine.PortableWalWriter(log, SMALL)
    assert case_name(caught.value.report.decision) == case
    assert str(walengine.verify(log).verdict) == "corrupt"
    for part in (str(log), *parts):
        assert part in str(caught.value)
    assert NEXT_STEP.search(str(caught.value)), str(caught.value)


def assert_both_refuse(path: Path, kind: type[walengine.WalError], *parts: str) -> None:
    """Reader and writer raise this class, and the message names the path and these parts."""
    _, error = read_all(path)
    assert type(error) is kind, f"{error!r}"
    with pytest.raises(kind) as caught:
        walengine.PortableWalWriter(path, SMALL)
    for message in (str(error), str(caught.value)):
        for part in (str(path), *parts):
            assert part in message


def assert_corrupt_behind(path: Path, kept: int = 5) -> None:
    """What stands before the damage is read, then WalCorruptionError; the writer refuses."""
    records, error = read_all(path)
    assert records == texts(1, kept)
    assert isinstance(error, walengine.WalCorruptionError), error
    assert str(path) in str(error)
    with pytest.raises(walengine.WalCorruptionError):
        walengine.PortableWalWriter(path, SMALL)


def look_capped(paths: list[Path], limit: int = 256 * MIB, seconds: float = 30) -> list[dict]:
    """look() at each path in one process whose address space is capped."""
    result = subprocess.run(
        [sys.executable, __file__, str(limit), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def main() -> None:
    """The capped process: one line of JSON for each path."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in sys.argv[2:]:
        try:
            seen = look(Path(path))
            line = {
                "verdict": seen.verdict,
                "case": seen.case,
                "records": len(seen.records),
                "error": type(seen.error).__name__ if seen.error else None,
                "message": str(seen.error or ""),
            }
        except walengine.WalError as error:
            line = {"verdict": "error", "error": type(error).__name__, "message": str(error)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
