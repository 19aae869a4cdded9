"""A durable key-value store: a dict in memory, and the log as the truth.

Every change is appended and synced before it is applied, so what ``put`` returned from survives
power loss. Opening replays the log. When the log has grown, the state is written as one record and
everything before it is trimmed.

    python kv.py shop.kv put colour green
    python kv.py shop.kv get colour
"""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Self

from walengine import PortableWalWriter, WalError, replay

COMPACT_EVERY = 1000  # changes


class Store:
    """Keys and values, both text."""

    def __init__(self, path: str) -> None:
        # Opening first takes the lock and recovers, so nobody else writes while we replay.
        self._wal = PortableWalWriter(path)
        self._state: dict[str, str] = {}
        self._changes = 0
        try:
            for record in replay(path):
                self._apply(json.loads(record.data))
        except BaseException:
            self._wal.close()
            raise

    def _apply(self, change: dict[str, object]) -> None:
        if "state" in change:
            self._state = dict(change["state"])  # type: ignore[call-overload]
            self._changes = 0
            return
        self._changes += 1
        if change["value"] is None:
            self._state.pop(str(change["key"]), None)
        else:
            self._state[str(change["key"])] = str(change["value"])

    def _change(self, key: str, value: str | None) -> None:
        change = {"key": key, "value": value}
        self._wal.append_durable(json.dumps(change).encode())
        # From here on it survives a power cut; only now it is applied and acknowledged.
        self._apply(change)
        if self._changes >= COMPACT_EVERY:
            self.compact()

    def put(self, key: str, value: str) -> None:
        """Set a key; durable when this returns."""
        self._change(key, value)

    def delete(self, key: str) -> None:
        """Remove a key; durable when this returns."""
        self._change(key, None)

    def get(self, key: str) -> str | None:
        """Return a value, or None."""
        return self._state.get(key)

    def items(self) -> dict[str, str]:
        """Return everything."""
        return dict(self._state)

    def compact(self) -> None:
        """Write the state as one record, then drop what came before it."""
        lsn = self._wal.append(json.dumps({"state": self._state}).encode())
        self._wal.truncate_before(lsn)  # syncs first: the state is durable before anything goes
        self._changes = 0

    def close(self) -> None:
        """Release the log."""
        self._wal.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def main(arguments: list[str]) -> int:
    """Run one command; 0 if it found what it was asked for."""
    try:
        return run(arguments)
    except WalError as error:  # its message names the log, the place and the next step
        print(f"kv.py: {error}", file=sys.stderr)
        return 1


def run(arguments: list[str]) -> int:
    """Run one command; 0 if it found what it was asked for, 2 for wrong usage."""
    match arguments:
        case [path, "put", key, value]:
            with Store(path) as store:
                store.put(key, value)
            return 0
        case [path, "delete", key]:
            with Store(path) as store:
                store.delete(key)
            return 0
        case [path, "get", key]:
            with Store(path) as store:
                value = store.get(key)
            print(value if value is not None else f"no key {key}")
            return 0 if value is not None else 1
        case [path, "items"]:
            with Store(path) as store:
                print(json.dumps(store.items()))
            return 0
        case _:
            print("usage: kv.py LOG put KEY VALUE | get KEY | delete KEY | items", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
