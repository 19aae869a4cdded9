"""The parent's side of the contenders' processes: they are started, asked by turns, and ended."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contenders import CONTENDERS
from loops import CannotRunError, Loops

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RUST = ROOT / "build" / "bench" / "peers" / "rust" / "release" / "walengine-bench-peers"
GO = ROOT / "build" / "bench" / "peers" / "go" / "peers"
NATIVE = {
    "okaywal": RUST,
    "raft-engine": RUST,
    "rivven-core": RUST,
    "etcd wal": GO,
    "tidwall/wal": GO,
    "raft-wal": GO,
}
LIMIT = "C limit"
FIO = "fio"

ANSWER_SECONDS_MAX = 600
ENDING_SECONDS_MAX = 30
QUIET_SECONDS = 0.06
QUIET_SECONDS_MAX = 5.0

Answer = dict[str, Any]


class PlayerFailedError(Exception):
    """A contender broke; its own output says more."""


class Player:
    """A contender in its process.

    Args:
        name: As in CONTENDERS or NATIVE.
        directory: An empty directory, all its own, on the disk under test.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.is_out = False  # it broke: no more slices
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return what is run."""
        if self.name in CONTENDERS:
            return [sys.executable, str(HERE / "serve.py"), self.name]
        program = NATIVE[self.name]
        if not program.exists():
            raise CannotRunError(f"{program.relative_to(ROOT)} is not built")
        return [str(program), self.name]

    def start(self) -> None:
        """Start the process, in a group of its own: Ctrl-C is for the parent."""
        self._process = subprocess.Popen(
            self.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )

    def begin(self, *words: object) -> subprocess.Popen[bytes]:
        """Send a command, and do not wait for the answer.

        Raises:
            CannotRunError: There is no such program.
            PlayerFailedError: It is gone.
        """
        if self._process is None:
            self.start()
        process = self._process
        if process is None or process.stdin is None:
            raise PlayerFailedError(f"{self.name}: there is no process")
        try:
            process.stdin.write((" ".join(map(str, words)) + "\n").encode())
            process.stdin.flush()
        except BrokenPipeError:
            raise PlayerFailedError(f"{self.name} ended before {words[0]!r}; see above") from None
        return process

    def ask(self, *words: object) -> Answer:
        """Run a command; return the answer.

        Raises:
            CannotRunError: This contender cannot do that.
            PlayerFailedError: It broke.
        """
        process = self.begin(*words)
        if process.stdout is None:
            raise PlayerFailedError(f"{self.name} has no output")
        if not select.select([process.stdout], [], [], ANSWER_SECONDS_MAX)[0]:
            self.kill()
            raise PlayerFailedError(f"{self.name}: no answer to {words[0]!r}, was killed")
        line = process.stdout.readline()
        if not line:
            self.kill()
            raise PlayerFailedError(f"{self.name} ended in the middle of {words[0]!r}; see above")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise CannotRunError(answer["error"])
        if "failed" in answer:
            raise PlayerFailedError(f"{self.name}: {answer['failed']}")
        return answer

    def open(self) -> Answer:
        """Open its store."""
        return self.ask("open", self.directory)

    def end(self) -> None:
        """Close the store and let the process end."""
        if self._process is None:
            return
        try:
            self.ask("close")
        except (CannotRunError, PlayerFailedError) as error:
            print(f"{self.name}: close: {error}", file=sys.stderr)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(ENDING_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                print(f"{self.name} does not end, and is killed", file=sys.stderr)
        self.kill()

    def kill(self) -> None:
        """End the process as kill -9 does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()

    def give_up(self) -> None:
        """End it for good."""
        self.is_out = True
        self.kill()

    def cpu_ticks(self) -> int:
        """Return the processor time it took so far."""
        if self._process is None:
            return 0
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return 0
        fields = text.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


class LimitPlayer(Player):
    """The C loops (limit.c), asked as a contender is.

    One at a time it is pwrite and fdatasync on a zero-filled file, which is what the log's target
    is stated against. Several at a time it is a bare ring with O_DIRECT and RWF_DSYNC, so many
    writes deep: what the device can do.
    """

    FRAME_BYTES = 328  # the log's frame of one record of 256 bytes
    BATCH_BYTES = 1 << 18  # and of 1,000 of them, rounded up
    RATE_FIRST = 1000.0

    def __init__(self, directory: Path) -> None:
        super().__init__(LIMIT, directory)
        self._loops = Loops(ROOT / "build" / "bench" / "limit", directory, self.FRAME_BYTES)
        self._rates: dict[tuple[str, int], float] = {}

    def ask(self, *words: object) -> Answer:
        """Run a loop."""
        match words[0]:
            case "puts":
                depth = int(str(words[1]))
                loop, extra = ("sync", 0) if depth == 1 else ("ring-direct", depth)
            case "batches":
                loop, extra = "bulk", self.BATCH_BYTES
            case "open" | "close" | "trim":
                return {"wall_ns": 0}
            case _:
                raise CannotRunError(f"the C loops do nothing like {words[0]!r}")
        return self._run(loop, extra, int(str(words[2])), int(str(words[3])))

    def _run(self, loop: str, extra: int, milliseconds: int, count_max: int) -> Answer:
        """Run a loop that takes a count for about so long."""
        rate = self._rates.get((loop, extra), self.RATE_FIRST)
        count = max(1, min(count_max, int(rate * milliseconds / 1000)))
        ran = self._loops.run(loop, count, extra)
        self._rates[loop, extra] = ran.per_second
        return {"wall_ns": ran.wall_ns, "ns": ran.durations_ns}

    def kill(self) -> None:
        """End the loops."""
        self._loops.close()

    def end(self) -> None:
        """The same."""
        self.kill()


class FioPlayer(Player):
    """fio: what the disk takes of large direct writes, asked as a contender is.

    Options: 1 MiB at a time, O_DIRECT, io_uring, 8 at a time, into a file that was laid out
    before, synced at the end (fio(1)). Its bytes count as records of 256 bytes.
    """

    FILE_BYTES = 256 << 20
    BATCH_BYTES = 256_000

    def __init__(self, directory: Path) -> None:
        super().__init__(FIO, directory)
        self._job: subprocess.Popen[bytes] | None = None

    def ask(self, *words: object) -> Answer:
        """Run the job once."""
        program = shutil.which("fio")
        if program is None:
            raise CannotRunError("there is no fio")
        if words[0] != "batches":
            return {"wall_ns": 0}
        options = {
            "name": "limit",
            "directory": self.directory,
            "filename": "file",
            "rw": "write",
            "bs": "1M",
            "size": self.FILE_BYTES,
            "overwrite": 1,
            "direct": 1,
            "ioengine": "io_uring",
            "iodepth": 8,
            "end_fsync": 1,
            "output-format": "json",
        }
        command = [program, *(f"--{name}={value}" for name, value in options.items())]
        with subprocess.Popen(
            command, cwd=self.directory, stdout=subprocess.PIPE, process_group=0
        ) as self._job:
            text = self._job.communicate()[0]
        if self._job.returncode:
            raise CannotRunError(f"fio ended with {self._job.returncode}; see above")
        job = json.loads(text)["jobs"][0]["write"]
        batches = job["io_bytes"] // self.BATCH_BYTES
        wall_ns = int(job["io_bytes"] / job["bw_bytes"] * 1e9)
        return {"wall_ns": wall_ns, "ns": [wall_ns // batches] * batches}

    def kill(self) -> None:
        """End the job, if one runs."""
        if self._job is not None and self._job.poll() is None:
            self._job.kill()


def player(name: str, scratch: Path) -> Player:
    """Make the player of a contender, with a fresh directory."""
    words = "".join(letter if letter.isalnum() else "-" for letter in name)
    for number in range(1, 1000):
        directory = scratch / f"{words}-{number}"
        if not directory.exists():
            break
    kinds = {LIMIT: LimitPlayer, FIO: FioPlayer}
    return kinds[name](directory) if name in kinds else Player(name, directory)


def wait_until_quiet(players: list[Player]) -> None:
    """Wait until no contender works in the background: the next slice belongs to one alone."""
    end = time.monotonic() + QUIET_SECONDS_MAX
    before = [each.cpu_ticks() for each in players]
    while time.monotonic() < end:
        time.sleep(QUIET_SECONDS)
        now = [each.cpu_ticks() for each in players]
        if now == before:
            return
        before = now
