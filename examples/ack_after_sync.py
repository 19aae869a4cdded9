"""Many threads, one log: each acknowledges its request only when it is durable.

Threads that sync at the same time share one sync: a leader syncs, the others wait for what it
publishes. The last line shows it: fewer syncs than acknowledged records.

    python ack_after_sync.py requests.log
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from walengine import PortableWalWriter, WalError, replay

THREADS = 8
REQUESTS = 25  # per thread


def main(path: str) -> int:
    """Serve, then check; 0 if every acknowledged request is in the log."""
    with PortableWalWriter(path) as wal:

        def serve(client: int) -> list[tuple[int, bytes]]:
            acknowledged = []
            for number in range(REQUESTS):
                request = b"client %d, request %d" % (client, number)
                lsn = wal.append_durable(request)  # synced: the client may be told
                acknowledged.append((lsn, request))
            return acknowledged

        with ThreadPoolExecutor(THREADS) as pool:
            acknowledged = [
                entry for entries in pool.map(serve, range(THREADS)) for entry in entries
            ]
        stats = wal.stats()

    found = {record.lsn: record.data for record in replay(path)}
    missing = [lsn for lsn, request in acknowledged if found.get(lsn) != request]
    print(f"{len(acknowledged)} acknowledged, {len(missing)} missing, {stats.syncs} syncs")
    return 1 if missing else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 (the program and its argument)
        sys.exit("usage: python ack_after_sync.py DIRECTORY_OF_THE_LOG")
    try:
        sys.exit(main(sys.argv[1]))
    except WalError as error:  # its message names the log, the place and the next step
        sys.exit(f"ack_after_sync.py: {error}")
