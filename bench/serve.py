"""One contender in a process of its own, which runs a slice of work for each line it reads.

    python bench/serve.py CONTENDER

Each line of standard input is a command, each line of standard output its answer, a JSON object.
The programs in bench/peers speak the same lines, as far as they can:

    open DIRECTORY                       make or open the store: {"wall_ns", "version"}
    puts CONCURRENCY MILLISECONDS MAX    durable puts of one record, by so many threads (or tasks),
                                         until the time or the count is over: {"wall_ns", "ns"}
    batches RECORDS MILLISECONDS MAX [CONCURRENCY]   durable batches, one behind the other, by so
                                         many threads (or tasks) at once: {"wall_ns", "ns"}
    load COUNT                           records as fast as it can, durable at the end: {"wall_ns"}
    scan, pairs-scan, batches-scan, verify THREADS   read everything: {"wall_ns", "count", "bytes"}
    stage COUNT, stage-busy COUNT        staging, and a plain method: {"ns", "reference_ns"}
    trim, close                          {}
    memory                               resident bytes now: {"bytes"}
    counter NAME                         a counter of its own: {"value"}

An answer {"error": TEXT} says why this contender cannot do that; {"failed": TEXT} that it broke.
Input that ends ends the process; it takes no Ctrl-C, which is its parent's business.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from calibration import Calibration, busy_thread, ns_per_call
from contenders import contender_class
from contenders.base import RECORD, AsyncContender, CannotRunError, Contender

Answer = dict[str, Any]


class Server:
    """Commands that any contender knows."""

    def do(self, words: list[str]) -> Answer:
        """Run one command."""
        name = words[0].replace("-", "_")
        method = getattr(self, f"do_{name}", None)
        if method is None:
            raise CannotRunError(f"there is no command {words[0]!r} for this contender")
        answer: Answer = method(*words[1:])
        return answer

    def do_memory(self) -> Answer:
        """Tell what of this process is resident."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return {"bytes": pages * os.sysconf("SC_PAGE_SIZE")}


class ThreadServer(Server):
    """A contender that threads call."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._puts: list[Callable[[bytes], object]] = []

    def do_open(self, directory: str) -> Answer:
        """Open it; the time is its own, imports are done."""
        begin = perf_counter_ns()
        self.contender.open(Path(directory))
        return {"wall_ns": perf_counter_ns() - begin, "version": self.contender.version()}

    def do_puts(self, concurrency: str, milliseconds: str, count_max: str) -> Answer:
        """Put from so many threads; one thread is the main one."""
        threads = int(concurrency)
        while len(self._puts) < threads:
            self._puts.append(self.contender.put_of_a_thread())
        share = max(1, int(count_max) // threads)
        if threads == 1:
            took: list[int] = []
            begin = perf_counter_ns()
            put_until(self._puts[0], begin + int(milliseconds) * 1_000_000, share, took)
            return {"wall_ns": perf_counter_ns() - begin, "ns": took}
        return puts_of_threads(self._puts[:threads], int(milliseconds), share)

    def do_batches(
        self, records: str, milliseconds: str, count_max: str, concurrency: str = "1"
    ) -> Answer:
        """Put batches; a thread makes each durable before its next."""
        batch = [RECORD] * int(records)
        share = max(1, int(count_max) // int(concurrency))

        def put(_record: bytes) -> None:
            self.contender.put_many(batch)

        if int(concurrency) > 1:
            return puts_of_threads([put] * int(concurrency), int(milliseconds), share)
        took: list[int] = []
        begin = perf_counter_ns()
        put_until(put, begin + int(milliseconds) * 1_000_000, share, took)
        return {"wall_ns": perf_counter_ns() - begin, "ns": took}

    def do_load(self, count: str) -> Answer:
        """Write fast."""
        begin = perf_counter_ns()
        self.contender.load(int(count))
        return {"wall_ns": perf_counter_ns() - begin}

    def do_scan(self) -> Answer:
        """Read one record at a time."""
        begin = perf_counter_ns()
        count = self.contender.scan()
        return {"wall_ns": perf_counter_ns() - begin, "count": count}

    def do_pairs_scan(self) -> Answer:
        """Read pairs out of batches."""
        begin = perf_counter_ns()
        count = self._own("scan_pairs")()
        return {"wall_ns": perf_counter_ns() - begin, "count": count}

    def do_batches_scan(self) -> Answer:
        """Read a block at a time."""
        begin = perf_counter_ns()
        count = self._own("scan_batches")()
        return {"wall_ns": perf_counter_ns() - begin, "count": count}

    def do_verify(self, threads: str) -> Answer:
        """Check everything."""
        begin = perf_counter_ns()
        count, checked_bytes = self._own("verify")(int(threads))
        return {"wall_ns": perf_counter_ns() - begin, "count": count, "bytes": checked_bytes}

    def do_stage(self, count: str) -> Answer:
        """Stage records in memory; beside it the same count of a plain method's calls."""
        took = ns_per_call(self._own("stage"), int(count))
        self._own("flush")()
        return {"ns": took, "reference_ns": Calibration().ns(int(count))}

    def do_stage_busy(self, count: str) -> Answer:
        """Do both while another thread never lets go of the interpreter's lock by itself."""
        with busy_thread():
            took = ns_per_call(self._own("stage"), int(count))
        self._own("flush")()
        with busy_thread():
            return {"ns": took, "reference_ns": Calibration().ns(int(count))}

    def do_trim(self) -> Answer:
        """Drop what is there."""
        self.contender.trim()
        return {}

    def do_counter(self, *words: str) -> Answer:
        """Tell a counter."""
        return {"value": self.contender.count_of(" ".join(words))}

    def do_close(self) -> Answer:
        """Close it."""
        self._puts.clear()
        self.contender.close()
        return {}

    def _own(self, name: str) -> Callable[..., Any]:
        """Return what only some contenders have."""
        method: Callable[..., Any] | None = getattr(self.contender, name, None)
        if method is None:
            raise CannotRunError(f"{self.contender.name} has nothing like it")
        return method


def put_until(
    put: Callable[[bytes], object], deadline_ns: int, count_max: int, took: list[int]
) -> None:
    """Put one record after the other; note what each took."""
    clock, record = perf_counter_ns, RECORD
    begin = clock()
    while begin < deadline_ns and len(took) < count_max:
        put(record)
        end = clock()
        took.append(end - begin)
        begin = end


def puts_of_threads(
    puts: list[Callable[[bytes], object]], milliseconds: int, count_max: int
) -> Answer:
    """Let each thread put until the time is over."""
    took: list[list[int]] = [[] for _ in puts]
    errors: list[BaseException] = []
    begin = 0

    def note_begin() -> None:
        nonlocal begin
        begin = perf_counter_ns()

    start = threading.Barrier(len(puts), action=note_begin)

    def run(put: Callable[[bytes], object], mine: list[int]) -> None:
        try:
            start.wait()
            put_until(put, begin + milliseconds * 1_000_000, count_max, mine)
        except BaseException as error:  # noqa: BLE001 (raised again below)
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=both, daemon=True)
        for both in zip(puts, took, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_ns = perf_counter_ns() - begin
    if errors:
        raise errors[0]
    return {"wall_ns": wall_ns, "ns": [duration for mine in took for duration in mine]}


class TaskServer(Server):
    """A contender that the tasks of one event loop call."""

    def __init__(self, contender: AsyncContender) -> None:
        self.contender = contender
        self._runner = asyncio.Runner(loop_factory=loop_factory(contender.loop))

    def do_open(self, directory: str) -> Answer:
        """Open it."""
        begin = perf_counter_ns()
        self._runner.run(self.contender.open(Path(directory)))
        return {"wall_ns": perf_counter_ns() - begin, "version": self.contender.version()}

    def do_puts(self, concurrency: str, milliseconds: str, count_max: str) -> Answer:
        """Put from so many tasks."""
        share = max(1, int(count_max) // int(concurrency))
        put = self.contender.put_of_a_task()
        return self._runner.run(self._puts(put, int(concurrency), int(milliseconds), share))

    def do_batches(
        self, records: str, milliseconds: str, count_max: str, concurrency: str = "1"
    ) -> Answer:
        """Put batches; a task waits until each is durable before its next."""
        batch = [RECORD] * int(records)
        share = max(1, int(count_max) // int(concurrency))

        def put(_record: bytes) -> Awaitable[object]:
            return self.contender.put_many(batch)

        return self._runner.run(self._puts(put, int(concurrency), int(milliseconds), share))

    async def _puts(
        self,
        put: Callable[[bytes], Awaitable[object]],
        tasks: int,
        milliseconds: int,
        count_max: int,
    ) -> Answer:
        took: list[list[int]] = [[] for _ in range(tasks)]
        begin = perf_counter_ns()
        deadline_ns = begin + milliseconds * 1_000_000
        async with asyncio.TaskGroup() as group:
            for mine in took:
                group.create_task(await_until(put, deadline_ns, count_max, mine))
        wall_ns = perf_counter_ns() - begin
        return {"wall_ns": wall_ns, "ns": [duration for mine in took for duration in mine]}

    def do_trim(self) -> Answer:
        """Drop what is there."""
        self._runner.run(self.contender.trim())
        return {}

    def do_counter(self, *words: str) -> Answer:
        """Tell a counter."""
        return {"value": self.contender.count_of(" ".join(words))}

    def do_close(self) -> Answer:
        """Close it, and the loop."""
        self._runner.run(self.contender.close())
        self._runner.close()
        return {}


async def await_until(
    put: Callable[[bytes], Awaitable[object]], deadline_ns: int, count_max: int, took: list[int]
) -> None:
    """Put one record after the other; note what each took."""
    clock, record = perf_counter_ns, RECORD
    begin = clock()
    while begin < deadline_ns and len(took) < count_max:
        await put(record)
        end = clock()
        took.append(end - begin)
        begin = end


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop."""
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 (only its contender needs it)

    return uvloop.new_event_loop


def main() -> None:
    """Answer line by line."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a package prints is no answer
    server: Server | None = None
    for line in sys.stdin:
        try:
            if server is None:
                contender = contender_class(sys.argv[1])()
                is_async = isinstance(contender, AsyncContender)
                server = TaskServer(contender) if is_async else ThreadServer(contender)
            answer = server.do(line.split())
        except (CannotRunError, ImportError) as error:
            answer = {"error": str(error)}
        except Exception as error:  # noqa: BLE001 (the parent says which contender it was)
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {error}"}
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:
            os._exit(1)  # the parent is gone, and nobody waits for a close


if __name__ == "__main__":
    main()
