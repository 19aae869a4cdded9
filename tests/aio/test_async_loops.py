"""AsyncWalWriter and event loops: cancellation, shutdown, the wrong loop, exit, fork, Ctrl-C."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import pytest
from engines import config

from walengine import AsyncWalWriter, LockedError, PortableWalWriter, _native, replay

TASKS = 30


def data_of(log):
    return [record.data for record in replay(log)]


def stall():
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 600_000)


# ---- cancellation --------------------------------------------------------------------------------


def test_cancelling_a_wait_loses_and_reorders_nothing(with_wal, log):
    async def body(wal):
        await wal.append_durable(b"0")
        stall()
        tasks = [asyncio.create_task(wal.append_durable(b"%d" % i)) for i in range(1, TASKS)]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.sleep(0.005)
        assert [task.cancelled() for task in tasks[::2]] == [True] * len(tasks[::2])
        _native._fault_clear()
        assert await asyncio.gather(*tasks[1::2]) == [i + 1 for i in range(2, TASKS, 2)]
        assert await wal.append_durable(b"%d" % TASKS) == TASKS + 1

    with_wal(body)
    assert data_of(log) == [b"%d" % i for i in range(TASKS + 1)]


def test_cancelling_before_the_coroutine_ran_leaves_nothing(with_wal, log):
    async def body(wal):
        task = asyncio.create_task(wal.append_durable(b"never began"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wal.append_durable(b"only this")

    with_wal(body)
    assert data_of(log) == [b"only this"]


def test_a_time_limit_around_a_call(with_wal, log):
    async def body(wal):
        await wal.append_durable(b"1")
        stall()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wal.append_durable(b"2")
        _native._fault_clear()
        await wal.wait_durable(2)

    with_wal(body)
    assert data_of(log) == [b"1", b"2"]


def test_cancelling_close_does_not_stop_it(engine, log, run):
    async def main():
        wal = await AsyncWalWriter.open(log, config())
        await wal.append_durable(b"1")
        stall()
        task = asyncio.create_task(wal.append_durable(b"2"))
        await asyncio.sleep(0.005)
        closing = asyncio.create_task(wal.aclose())
        await asyncio.sleep(0.005)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        _native._fault_clear()
        assert await task == 2
        await wal.aclose()
        assert "closed" in repr(wal)

    run(main())
    PortableWalWriter(log, config()).close()
    assert data_of(log) == [b"1", b"2"]


def test_cancelling_an_open_releases_the_lock(engine, log, run):
    PortableWalWriter(log, config()).close()

    async def main():
        opening = asyncio.create_task(AsyncWalWriter.open(log, config()))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    run(main())
    gc.collect()
    PortableWalWriter(log, config()).close()


# ---- loops ---------------------------------------------------------------------------------------


def test_another_loop_is_refused_and_the_writer_stays_usable(with_wal):
    async def body(wal):
        refused = []

        def use_it_there():
            async def there():
                for call in (wal.append_durable(b"x"), wal.append(b"x"), wal.flush_batch()):
                    try:
                        await call
                    except RuntimeError as error:
                        refused.append(str(error))

            asyncio.run(there())

        thread = threading.Thread(target=use_it_there)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert len(refused) == 3
        assert "another event loop" in refused[0]
        assert await wal.append_durable(b"here") == 1

    with_wal(body)


def test_two_loops_with_a_log_each(engine, tmp_path, run, scaled):
    async def use(log):
        async with AsyncWalWriter(log, config()) as wal:
            for i in range(scaled(30)):
                await asyncio.gather(*(wal.append_durable(b"%d" % i) for _ in range(5)))

    other = threading.Thread(target=lambda: asyncio.run(use(tmp_path / "there")))
    other.start()
    run(use(tmp_path / "here"))
    other.join()
    assert data_of(tmp_path / "here") == data_of(tmp_path / "there")


def test_one_loop_with_two_logs_and_one_log_opened_twice(engine, tmp_path, run):
    async def main():
        async with (
            AsyncWalWriter(tmp_path / "a", config()) as a,
            AsyncWalWriter(tmp_path / "b", config()) as b,
        ):
            lsns = await asyncio.gather(
                *(wal.append_durable(b"x") for wal in (a, b) for _ in range(5))
            )
            assert lsns == [1, 2, 3, 4, 5] * 2
            with pytest.raises(LockedError):
                await AsyncWalWriter.open(tmp_path / "a", config())

    run(main())


def test_a_loop_that_ends_with_waits_pending(engine, log, run):
    """The tasks are cancelled; what they staged is written when the writer goes."""

    async def main():
        wal = await AsyncWalWriter.open(log, config())
        await wal.append_durable(b"safe")
        await wal.append_batched(b"staged")
        task = asyncio.create_task(wal.append_durable(b"pending"))
        await asyncio.sleep(0)
        return wal, task

    wal, task = run(main())
    assert task.done()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del wal, task
        gc.collect()
    assert [warning.category for warning in seen] == [ResourceWarning]
    assert data_of(log) == [b"safe", b"staged", b"pending"]


def test_no_thread_waits_and_no_descriptor_is_left(engine, log, run):
    async def main():
        async with AsyncWalWriter(log, config()) as wal:
            await wal.append_durable(b"warm up")
            threads = threading.active_count()
            tasks = [asyncio.create_task(wal.append_durable(b"x")) for _ in range(200)]
            await asyncio.sleep(0)
            assert threading.active_count() == threads
            await asyncio.gather(*tasks)

    run(main())  # what the loops themselves open for good
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        run(main())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# ---- exit, fork, signals -------------------------------------------------------------------------


PROGRAM = """
import asyncio, os, sys
from engines import config
from walengine import AsyncWalWriter, ForkedError

async def main():
    wal = await AsyncWalWriter.open(sys.argv[1], config())
    await wal.append_durable(b"durable")
    await wal.append_batched(b"staged")
{body}
asyncio.run(main())
"""


def start(log, body):
    text = PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    return subprocess.Popen(
        [sys.executable, "-c", text, str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def test_exit_flushes_what_is_staged_and_says_so(engine, log):
    # A reference that outlives the loop: collected only when the interpreter goes.
    child = start(log, "global keep\nkeep = wal")
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "1 staged records were flushed at interpreter exit" in err
    assert data_of(log) == [b"durable", b"staged"]


def test_the_child_of_a_fork_is_refused_and_harms_nothing(engine, log):
    body = """
    pid = os.fork()
    if pid == 0:
        try:
            await wal.append_durable(b"from the child")
        except ForkedError:
            os._exit(7)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert await wal.append_durable(b"from the parent") == 3
    await wal.aclose()
    """
    child = start(log, body)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert data_of(log) == [b"durable", b"staged", b"from the parent"]


def test_ctrl_c_ends_the_program_beside_a_stuck_sync(engine, log):
    body = """
    from walengine import _native
    _native._fault_set(_native._FAULT_SYNC, _native._FAULT_STALL, 600_000)
    tasks = [asyncio.create_task(wal.append_durable(b"stuck")) for _ in range(100)]
    await asyncio.sleep(0.01)
    print("stuck", flush=True)
    try:
        await asyncio.gather(*tasks)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        _native._fault_clear()
        await wal.aclose()
        raise
    """
    child = start(log, body)
    assert child.stdout.readline() == "stuck\n"
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert out == "cancelled\n", err
    assert "KeyboardInterrupt" in err
    assert time.monotonic() - begin < 30  # it does not hang; how fast is measured elsewhere
    assert len(data_of(log)) == 102
