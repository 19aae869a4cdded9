"""What ``replay --salvage`` leaves out: the gaps between the records that are whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from walengine.cli._run import CORRUPT, complain
from walengine.types import Lsn, Record


class Gaps:
    """Names each gap on standard error when it is met.

    Args:
        log: Directory of the log.
        first: LSN of the record that comes first in a whole log.
    """

    def __init__(self, log: str, first: Lsn) -> None:
        self.missing = 0
        self._log = log
        self._next = first

    def watched(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records, which come in order."""
        for record in records:
            self.expect(record.lsn)
            self._next = record.lsn + 1
            yield record

    def expect(self, lsn: Lsn) -> None:
        """Say what is missing before this record."""
        count = lsn - self._next
        if count <= 0:
            return
        span = f"LSN {self._next} is" if count == 1 else f"LSNs {self._next} to {lsn - 1} are"
        complain(f"{self._log}: {span} missing", CORRUPT)
        self.missing += count
        self._next = lsn
