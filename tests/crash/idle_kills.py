"""Open a log, append nothing, be killed; again and again. Prints what the log occupies.

Arguments: the log, how many kills. Run as a program: it forks, which a process with threads (as
pytest's is) should not.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path

from walengine import PortableWalWriter

sys.path.append(str(Path(__file__).parent.parent))
from engines import config

SETTLING_KILLS = 5  # the first may leave a prepared segment or a spare; no later one may add
SEGMENT_BYTES = 1 << 20


def space(log: Path) -> dict:
    """What du and ls see."""
    files = [path.stat() for path in log.iterdir()]
    return {
        "blocks": sum(status.st_blocks for status in files),
        "files": len(files),
    }


def kill_once(log: Path) -> None:
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        wal = PortableWalWriter(log, config(segment_bytes=SEGMENT_BYTES))
        os.write(told, b"%d" % wal.last_lsn)
        signal.pause()
        os._exit(1)
    os.close(told)
    opened = os.read(ready, 20)
    os.close(ready)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert opened, "the writer could not open the log"
    assert os.WTERMSIG(status) == signal.SIGKILL


def main() -> None:
    logging.disable()
    log, kills = Path(sys.argv[1]), int(sys.argv[2])
    seen = []
    for number in range(1, kills + 1):
        kill_once(log)
        if number >= SETTLING_KILLS:
            now = space(log)
            if not seen or seen[-1] != now:
                seen.append(now)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
