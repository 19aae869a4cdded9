"""What each kind of sink adds: counting, lines and logging, records of a log, several targets."""

import asyncio
import errno
import io
import logging

import pytest

from walengine import (
    IoUringConfig,
    PortableWalWriter,
    RecordTooLargeError,
    WalClosedError,
    WalConfig,
    WalFullError,
    WalPoisonedError,
    _native,
    replay,
)
from walengine.sinks import (
    AsyncBatchSink,
    AsyncCallbackSink,
    AsyncFanOutSink,
    AsyncLogSink,
    AsyncStatsSink,
    AsyncWalSink,
    BackpressureError,
    BatchSink,
    CallbackSink,
    FanOutSink,
    LogSink,
    SinkHandler,
    StatsSink,
    WalSink,
)

# ---- counting ------------------------------------------------------------------------------------


def test_stats_count_the_batches_of_the_inner_sink():
    inner = BatchSink(3)
    with StatsSink(inner) as sink:
        for i in range(8):
            sink.send(i)
        assert sink.stats() == (6, 2, 3)
        assert sink.ready()
    assert inner.closed
    assert (sink.stats().items, sink.stats().batches, sink.stats().max_batch) == (8, 3, 3)


def test_stats_of_any_other_sink_count_from_flush_to_flush():
    with StatsSink(StatsSink()) as sink:
        for count in (3, 1):
            for i in range(count):
                sink.send(i)
            sink.flush()
        sink.flush()
        sink.send(0)
    assert sink.stats() == sink.inner.stats() == (5, 3, 3)


def test_async_stats():
    async def run():
        async with AsyncStatsSink(AsyncBatchSink(3)) as told:
            await told.ready()
            assert await told.send_all(range(7)) == 7
            told.send_nowait(7)
        assert told.stats() == (8, 4, 3)
        async with AsyncStatsSink(AsyncStatsSink()) as alone:
            assert await alone.send_all(range(7)) == 7
            await alone.send(7)
            await alone.flush()
            alone.send_nowait(8)
        assert alone.stats() == alone.inner.stats() == (9, 3, 7)

    asyncio.run(run())


# ---- lines ---------------------------------------------------------------------------------------


class Writer(io.StringIO):
    """A text file that fails when told; chunks is what each write got."""

    def __init__(self):
        super().__init__()
        self.chunks = []
        self.failing = ""

    def write(self, text):
        if self.failing == "write":
            raise OSError(errno.ENOSPC, "full")
        self.chunks.append(text)
        return len(text)

    def flush(self):
        if self.failing == "flush":
            raise OSError(errno.ENOSPC, "full")


def test_lines_are_written_in_chunks():
    writer = Writer()
    with LogSink(writer, chunk_lines=2) as sink:
        for line in ("a", "b\n", "c"):
            sink.send(line)
        with pytest.raises(TypeError, match="bytes"):
            sink.send(b"d")
    assert writer.chunks == ["a\nb\n", "c\n"]


@pytest.mark.parametrize("failing", ["write", "flush"])
def test_a_line_that_the_writer_took_is_not_written_again(failing):
    writer = Writer()
    sink = LogSink(writer, chunk_lines=10)
    sink.send("a")
    writer.failing = failing
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            sink.flush()
        assert sink.buffered_count() == 1
    sink.send("b")
    writer.failing = ""
    sink.close()
    assert "".join(writer.chunks) == "a\nb\n"


def test_a_line_that_the_writer_took_is_accepted_and_the_error_comes_later():
    writer = Writer()
    sink = LogSink(writer, chunk_lines=2)
    writer.failing = "flush"
    sink.send("a")
    sink.send("b")  # written, not flushed
    with pytest.raises(OSError, match="full"):
        sink.send("c")
    writer.failing = ""
    sink.send("c")
    sink.close()
    assert "".join(writer.chunks) == "a\nb\nc\n"


def test_async_lines_go_to_a_real_file(tmp_path):
    async def run(file):
        async with AsyncLogSink(file, chunk_lines=3) as sink:
            await sink.send_all(str(i) for i in range(10))

    with (tmp_path / "lines").open("w") as file:
        asyncio.run(run(file))
        assert (tmp_path / "lines").read_text().split() == [str(i) for i in range(10)]


@pytest.fixture
def logger():
    logger = logging.getLogger("test_sinks")
    logger.propagate = False
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)


def test_the_handler_formats_batches_and_flushes_errors(logger):
    writer = Writer()
    handler = SinkHandler(LogSink(writer, chunk_lines=2), level=logging.INFO)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.debug("no")
    logger.info("one")
    assert writer.chunks == []
    logger.info("two %d", 2)
    logger.error("three")
    assert writer.chunks == ["INFO one\nINFO two 2\n", "ERROR three\n"]
    logger.info("four")
    handler.close()
    assert handler.sink.closed
    handler.flush()  # as logging does at exit
    assert writer.chunks[-1] == "INFO four\n"


def test_the_handler_reports_as_logging_does(logger, capsys):
    writer = Writer()
    handler = SinkHandler(LogSink(writer, chunk_lines=2))
    logger.addHandler(handler)
    logger.warning("one")
    writer.failing = "write"
    logger.warning("two")  # not accepted, and logging says so
    assert "Message: 'two'" in capsys.readouterr().err
    writer.failing = ""
    handler.close()
    assert writer.chunks == ["one\n"]


# ---- records -------------------------------------------------------------------------------------

SMALL = WalConfig(
    segment_bytes=32768,
    max_log_bytes=131072,
    io=IoUringConfig(registered_buffers=1, buffer_size=4096),
)


def records(path):
    return [record.data for record in replay(path)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wal.log"


@pytest.fixture(autouse=True)
def _faults_end():
    yield
    _native._fault_clear()


def test_what_was_flushed_is_durable(path):
    with PortableWalWriter(path) as wal, WalSink(wal, capacity=3) as sink:
        mutable = bytearray(b"one")
        sink.send(mutable)
        mutable[:] = b"xxx"
        sink.send(memoryview(b"two"))
        assert wal.last_lsn == 0
        sink.send(b"three")
        assert wal.durable_lsn == 3
        sink.send(b"")
        sink.flush()
        assert wal.durable_lsn == 4
        for item, error in (("text", TypeError), (5, TypeError)):
            with pytest.raises(error):
                sink.send(item)
        sink.send(b"last")
    assert records(path) == [b"one", b"two", b"three", b"", b"last"]


def test_an_item_that_can_be_no_record_is_refused_at_once(path):
    config = WalConfig(max_record_bytes=100)
    with PortableWalWriter(path, config) as wal, WalSink(wal) as sink:
        with pytest.raises(RecordTooLargeError, match="max_record_bytes=100"):
            sink.send(bytes(101))
        sink.send(bytes(100))
    assert records(path) == [bytes(100)]


def test_a_full_log_takes_each_item_once(path):
    """Method: batches that do not fit; trim, reopen the sound writer or not, and flush again."""
    for reopened in ("never", "while full", "after the trim"):
        log = path.with_suffix(f".{reopened}")
        sent, seen = [], []
        with PortableWalWriter(log, SMALL) as wal:
            sink = WalSink(wal, capacity=7)
            with pytest.raises(WalFullError):
                while True:
                    item = b"%06d" % len(sent) * 150
                    sink.send(item)
                    sent.append(item)
            for _ in range(3):
                with pytest.raises(WalFullError):
                    sink.flush()
            if reopened == "while full":
                wal.reopen()
                with pytest.raises(WalFullError):
                    sink.flush()
            seen += records(log)
            durable = wal.durable_lsn
            wal.truncate_before(durable + 1)
            if reopened == "after the trim":
                wal.reopen()
            sink.close()
            seen = seen[:durable] + records(log)[-(wal.durable_lsn - durable) :]
        assert seen[: len(sent)] == sent
        assert len(seen) == len(sent)


def test_after_a_poisoning_and_a_reopen_each_item_is_there_once(path):
    """Method: a sync that fails may leave its records in the log; both outcomes are tried."""
    for operation in (_native._FAULT_SYNC, _native._FAULT_WRITE):
        log = path.with_suffix(f".{operation}")
        with PortableWalWriter(log, WalConfig(backend="pwrite")) as wal:
            sink = WalSink(wal, capacity=100)
            sink.send(b"durable")
            sink.flush()
            for i in range(5):
                sink.send(b"item %d" % i)
            _native._fault_set(operation, _native._FAULT_FAIL, errno.EIO)
            for _ in range(2):
                with pytest.raises(WalPoisonedError):
                    sink.flush()
            _native._fault_clear()
            assert sink.buffered_count() == 5
            wal.reopen()
            sink.send(b"later")
            sink.close()
            wal.sync()
        assert records(log) == [b"durable", *(b"item %d" % i for i in range(5)), b"later"]


@pytest.mark.parametrize("operation", [_native._FAULT_SYNC, _native._FAULT_WRITE])
@pytest.mark.parametrize("fills", ["in a flush", "in its send"])
def test_the_record_that_fills_the_writers_batch_and_meets_poison_is_there_once(
    path, operation, fills
):
    """The writer syncs inside append_batched there, so a sync that fails may leave the record."""
    config = WalConfig(io=IoUringConfig(registered_buffers=1, buffer_size=4096), backend="pwrite")
    items = [bytes([i]) * 1000 for i in range(5)]
    with PortableWalWriter(path, config) as wal:
        sink = WalSink(wal, capacity=10 if fills == "in a flush" else 5)
        for item in items[:4]:
            sink.send(item)
        _native._fault_set(operation, _native._FAULT_FAIL, errno.EIO)
        sink.send(items[4])
        with pytest.raises(WalPoisonedError):
            sink.flush()
        _native._fault_clear()
        wal.reopen()
        sink.close()
    assert records(path) == items


def test_a_send_that_meets_poison_says_so_next_time(path):
    with PortableWalWriter(path, WalConfig(backend="pwrite")) as wal:
        sink = WalSink(wal, capacity=2)
        sink.send(b"one")
        _native._fault_set(_native._FAULT_SYNC, _native._FAULT_FAIL, errno.EIO)
        sink.send(b"two")  # the log may have it: accepted
        _native._fault_clear()
        with pytest.raises(WalPoisonedError):
            sink.send(b"three")
        wal.reopen()
        sink.send(b"three")
        sink.close()
    assert records(path) == [b"one", b"two", b"three"]


def test_a_closed_writer_loses_nothing_of_the_sink(path):
    wal = PortableWalWriter(path)
    sink = WalSink(wal)
    sink.send(b"one")
    wal.close()
    with pytest.raises(WalClosedError):
        sink.close()
    assert sink.discard() == [b"one"]


def test_async_wal_sink(path):
    async def run(wal):
        async with AsyncWalSink(wal, capacity=10) as sink:
            await sink.send_all(b"%d" % i for i in range(55))
            assert wal.durable_lsn == 55
            await sink.send(b"last")
            flush = asyncio.create_task(sink.flush())
            await asyncio.sleep(0)
            flush.cancel()

    with PortableWalWriter(path) as wal:
        asyncio.run(run(wal))
        assert wal.durable_lsn == 56
    assert records(path) == [*(b"%d" % i for i in range(55)), b"last"]


# ---- several targets -----------------------------------------------------------------------------


class Down:
    """A callback that fails while it is down."""

    def __init__(self):
        self.is_down = False
        self.items = []

    def __call__(self, batch):
        if self.is_down:
            raise OSError("down")
        self.items += batch


def test_a_failing_target_keeps_no_other_from_its_items():
    good, bad = Down(), Down()
    targets = [CallbackSink(1, bad), CallbackSink(1, good)]
    sink = FanOutSink(targets)
    bad.is_down = True
    sink.send(1)  # one of them has it: accepted
    assert (good.items, bad.items) == ([1], [])
    with pytest.raises(OSError, match="down") as caught:
        sink.send(2)
    assert any("target 0 of 2" in note for note in caught.value.__notes__)
    with pytest.raises(OSError, match="down"):
        sink.send(2)
    assert (good.items, bad.items) == ([1], [])
    bad.is_down = False
    sink.send(2)
    assert (good.items, bad.items) == ([1, 2], [1, 2])
    sink.close()
    assert all(target.closed for target in targets)


def test_targets_that_all_fail_took_nothing():
    both = [Down(), Down()]
    sink = FanOutSink([CallbackSink(1, each) for each in both])
    for each in both:
        each.is_down = True
    with pytest.raises(ExceptionGroup, match="2 of 2 targets failed"):
        sink.send(1)
    assert sink.buffered_count() == 0


def test_fan_out_needs_a_target():
    for kind in (FanOutSink, AsyncFanOutSink):
        with pytest.raises(ValueError, match="targets is empty"):
            kind([])


def test_async_fan_out_feeds_all_at_once():
    async def run():
        gate, fast, slow, bad = asyncio.Event(), [], [], Down()

        async def slowly(batch):
            await gate.wait()
            slow.extend(batch)

        async def quickly(batch):
            fast.extend(batch)

        targets = [AsyncCallbackSink(1, slowly), AsyncCallbackSink(1, quickly)]
        targets.append(AsyncCallbackSink(1, bad))
        async with AsyncFanOutSink(targets, capacity=2) as sink:
            bad.is_down = True
            sink.send_nowait(0)
            sink.send_nowait(1)  # the others take both
            with pytest.raises(OSError, match="down"):
                sink.send_nowait(2)
            bad.is_down = False
            for i in (2, 3):
                await sink.send(i)  # slow is full: its part is waited for in the background
            await asyncio.wait([targets[1]._shell._task])
            await targets[1].flush()
            assert fast == [0, 1, 2, 3]
            assert slow == []
            gate.set()
            await sink.send_all([4, 5])
        assert fast == slow == bad.items == [0, 1, 2, 3, 4, 5]

    asyncio.run(run())


class Answering(AsyncStatsSink):
    """A target of somebody else's, whose methods return something."""

    async def send(self, item):
        await super().send(item)
        return item

    def send_nowait(self, item):
        raise BackpressureError(f"wait with {item}")

    async def flush(self):
        await super().flush()
        return 1

    async def aclose(self):
        await super().aclose()
        return True


def test_what_a_targets_methods_return_is_no_failure():
    async def body():
        targets = [Answering(), Answering()]
        async with AsyncFanOutSink(targets) as sink:
            await sink.send("item")
            await sink.flush()
        return [target.stats().items for target in targets]

    assert asyncio.run(body()) == [1, 1]
