"""A nursery of producers for test_queue_processes.py: forks them, kills them, counts them out.

It reads commands on standard input, one a line: ``start NAME``, ``kill NAME``, ``finish``. Its
producers write a line ``NAME CALL`` to standard output for each call that is durable. It reaps what
it forked, so that no pid can have become somebody else's when it is killed.
"""

import asyncio
import os
import signal
import sys
import traceback
from collections import deque

import servers

from walengine.buffer import AsyncProducer, ObjectStoreConfig, ProducerConfig

ENTRIES_A_CALL = 2
CALLS_UNDER_WAY_MAX = 4


async def produce(store, name):
    """Produce until SIGUSR1, a few calls under way, and say which are durable."""
    config = ProducerConfig(object_store=store, flush_interval=0.01)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    under_way, call = deque(), 0
    async with AsyncProducer(config) as producer:
        while under_way or not stop.is_set():
            if not stop.is_set() and len(under_way) < CALLS_UNDER_WAY_MAX:
                entries = [f"{name} {call} {i}".encode() for i in range(ENTRIES_A_CALL)]
                under_way.append((call, await producer.produce(entries)))
                call += 1
                continue
            durable, handle = under_way.popleft()
            await handle.watcher.await_durable()
            os.write(1, f"{name} {durable}\n".encode())


class Nursery:
    """The processes by name."""

    def __init__(self, store):
        self.store = store
        self.pids = {}

    def start(self, name):
        pid = os.fork()
        if pid:
            self.pids[name] = pid
            return
        status = 1
        try:
            sys.stdin.close()
            asyncio.run(produce(self.store, name))
            status = 0
        except BaseException:  # noqa: BLE001 (the fork of a loop must not go on in it)
            traceback.print_exc()
        finally:
            os._exit(status)

    def kill(self, name):
        os.kill(self.pids[name], signal.SIGKILL)
        _, status = os.waitpid(self.pids.pop(name), 0)
        self.expect(name, os.waitstatus_to_exitcode(status), -signal.SIGKILL)

    def finish(self):
        for pid in self.pids.values():
            os.kill(pid, signal.SIGUSR1)
        for name, pid in self.pids.items():
            _, status = os.waitpid(pid, 0)
            self.expect(name, os.waitstatus_to_exitcode(status), 0)

    def expect(self, name, status, expected):
        if status != expected:
            sys.exit(f"{name} ended with {status}, not {expected}")


def store_of(kind, *place):
    """Return the store by its kind and place: a directory; or an endpoint and a bucket."""
    return ObjectStoreConfig.Local(*place) if kind == "local" else servers.bucket(*place)


def main():
    # Until a producer can take it; it waits, and is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    nursery = Nursery(store_of(*sys.argv[1:]))
    for line in sys.stdin:
        command, *arguments = line.split()
        getattr(nursery, command)(*arguments)
        if command == "finish":
            return


if __name__ == "__main__":
    main()
