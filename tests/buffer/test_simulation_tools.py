"""The simulation itself: its time, its processes, its store, and that its oracle sees."""

import asyncio
import struct
from types import SimpleNamespace

import pytest
from faults import Fault
from simulation import decoder
from simulation.client import Client
from simulation.objects import Objects
from simulation.oracle import MANIFEST, OPERATOR, PREFIX, InvariantError, Oracle
from simulation.weather import Weather
from simulation.world import World

from walengine.buffer import StorageError
from walengine.buffer.entry import Listing, Metadata
from walengine.buffer.manifest import Manifest

GRACE_MS = 600_000


@pytest.fixture
def world():
    return World(1)


def finish(world, *processes):
    assert world.run(lambda: all(process.main.done() for process in processes))
    return [process.main.result() for process in processes]


# ---- time ----------------------------------------------------------------------------------------


def test_hours_pass_in_no_time_and_timers_keep_their_order(world):
    seen = []

    async def program(process):
        loop = asyncio.get_running_loop()
        loop.call_later(3600.0, seen.append, "hour")
        loop.call_later(60.0, seen.append, "minute")
        await asyncio.sleep(7200.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10.0):
                await asyncio.Event().wait()
        return loop.time()

    assert finish(world, world.start("a", program)) == [7210.0]
    assert seen == ["minute", "hour"]
    assert world.now_s == 7210.0


def test_processes_take_turns_and_the_order_is_the_seeds(world):
    def order(seed):
        world, seen = World(seed), []

        async def program(process):
            for _ in range(5):
                await asyncio.sleep(1.0)
                seen.append(process.name)

        finish(world, *(world.start(name, program) for name in "abc"))
        return "".join(seen)

    orders = [order(seed) for seed in range(20)]
    assert orders == [order(seed) for seed in range(20)]
    assert len(set(orders)) == 20


def test_a_stopped_process_finds_its_timers_late_and_a_suspended_ones_clock_stands(world):
    async def program(process):
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        await asyncio.sleep(1.0)
        return loop.time() - begin_s, process.wall_ms()

    stopped, suspended = (world.start(name, program) for name in ("stopped", "suspended"))
    world.at(0.5, stopped.freeze, 100.0)
    world.at(0.5, lambda: suspended.freeze(100.0, suspend=True))
    (slept_s, wall_ms), (slept_suspended_s, _) = finish(world, stopped, suspended)
    assert slept_s == pytest.approx(100.5)
    assert wall_ms == world.processes[0].world.now_ms() - 500
    assert slept_suspended_s == pytest.approx(1.0)
    assert world.now_s == pytest.approx(101.0)


def test_a_killed_process_never_goes_on_and_its_finally_does_not_run_in_its_life(world):
    seen = []

    async def program(process):
        try:
            await asyncio.sleep(10.0)
        finally:
            seen.append(world.now_s)

    process = world.start("a", program)
    world.at(5.0, process.crash)
    assert not world.run(lambda: False)
    assert seen == []
    world.bury()
    assert not process.running


def test_a_process_that_spins_is_found(world):
    async def program(process):
        def spin():
            process.loop.call_soon(spin)

        spin()

    world.start("a", program)
    with pytest.raises(AssertionError, match="a spins"):
        world.run(lambda: False)


# ---- the store -----------------------------------------------------------------------------------


class Deaf:
    def asked(self, *what):
        pass

    answered = asked


class Scripted(Weather):
    """The first request meets a fault, the others none."""

    def __init__(self, world, *faults):
        super().__init__(world, 0.01, 0.0, (), MANIFEST)
        self.faults = list(faults)

    def fault(self, *_):
        return self.faults.pop(0) if self.faults else None


def request(world, fault, *, kill=False):
    """Create an object under a fault; returns how that ended, and the objects in the end."""
    objects = Objects(world)

    async def program(process):
        client = Client(process, objects, Scripted(world, fault), Deaf())
        try:
            return await client.create("x", b"1")
        except StorageError as error:
            return "unclear" if error.unclear else "clear"

    process = world.start("a", program)
    if kill:
        world.at(0.0001, process.crash)
    world.run(lambda: False)
    return process, objects


@pytest.mark.parametrize(
    ("fault", "outcome", "there"),
    [
        (Fault.FAIL_BEFORE, "clear", {False}),
        (Fault.LOST_REQUEST, "unclear", {False}),
        (Fault.UNAVAILABLE, "unclear", {False}),
        (Fault.CONFLICT, "unclear", {False}),
        (Fault.LOST_REPLY, "unclear", {True}),
        (Fault.LATE, "unclear", {True}),
        (Fault.TIMEOUT, "unclear", {True, False}),
        (Fault.PRECONDITION, None, {False}),
    ],
)
def test_faults_of_a_conditional_write(fault, outcome, there):
    seen = set()
    for seed in range(20):
        process, objects = request(World(seed), fault)
        assert process.main.result() == outcome
        seen.add("x" in objects.now)
    assert seen == there


def test_a_request_that_has_left_arrives_though_its_process_is_dead(world):
    process, objects = request(world, None, kill=True)
    assert not process.main.done()
    assert "x" in objects.now


def test_a_request_that_has_not_left_waits_for_its_process(world):
    """Goal: a process can be frozen between its decision and the store's."""
    objects = Objects(world)

    async def program(process):
        client = Client(process, objects, Scripted(world), Deaf())
        client.ambush = lambda *_: process.freeze(3600.0)
        await client.put("x", b"1")

    process = world.start("a", program)
    assert not world.run(lambda: "x" in objects.now and world.now_s < 3600.0)
    assert process.main.done()
    assert objects.history[0].at_s > 3600.0


# ---- the oracle ----------------------------------------------------------------------------------


def name(number, age_ms=0):
    """A batch's name as if stamped so long before the beginning."""
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    time_ms = 1_700_000_000_000 - age_ms
    stamp = "".join(digits[time_ms >> 5 * place & 31] for place in range(9, -1, -1))
    return f"{PREFIX}/{stamp}{number:016d}.batch"


def batch(*entries):
    block = b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)
    return block + struct.pack("<BIH", 0, len(entries), 1)


class Watched:
    """A store under the oracle's eyes, and a manifest to write into it."""

    def __init__(self, world):
        self.objects = Objects(world)
        self.oracle = Oracle(world, self.objects, GRACE_MS)
        self.manifest = Manifest.empty(MANIFEST)

    def swap(self, who, manifest):
        self.objects.put(who, MANIFEST, manifest.data)
        self.manifest = manifest

    def append(self, who, *numbers):
        for number in numbers:
            self.objects.put(who, name(number), batch(b"%d" % number))
        listings = [Listing(name(number), [Metadata(0, 0, b"m")]) for number in numbers]
        self.swap(who, self.manifest.append(listings))

    def told(self, process, verb, object_name, result):
        self.oracle.answered(process, verb, object_name, result)


@pytest.fixture
def watched(world):
    watched = Watched(world)
    watched.swap("c0", watched.manifest.raise_epoch())
    watched.append("p0", 1, 2)
    return watched


def test_what_is_right_is_no_violation(watched):
    watched.swap("c0", watched.manifest.dequeue(0))
    watched.swap("c1", watched.manifest.raise_epoch())
    watched.append("p1", 3)
    watched.swap("c1", watched.manifest.dequeue(2))
    watched.oracle.produced("p0", 0, [b"1", b"2"])
    watched.oracle.confirmed("p0", 0)
    watched.oracle.judge_delivery([(0, b"1"), (1, b"2")])


def test_b1_durable_and_lost(watched):
    watched.oracle.produced("p0", 0, [b"1", b"2"])
    watched.oracle.confirmed("p0", 0)
    with pytest.raises(InvariantError, match="B1.*durable and not in the sink.*b'2'"):
        watched.oracle.judge_delivery([(0, b"1")])


@pytest.mark.parametrize(
    ("rows", "message"),
    [([(0, b"1"), (1, b"1")], "B2.*twice"), ([(0, b"9")], "B2.*nobody made")],
)
def test_b2_doubled_or_invented(watched, rows, message):
    watched.oracle.produced("p0", 0, [b"1"])
    with pytest.raises(InvariantError, match=message):
        watched.oracle.judge_delivery(rows)


def test_b3_out_of_order(watched):
    watched.oracle.produced("p0", 0, [b"1"])
    watched.oracle.produced("p0", 1, [b"2"])
    with pytest.raises(InvariantError, match="B3"):
        watched.oracle.judge_delivery([(0, b"2"), (1, b"1")])


def test_b4_a_fenced_consumer_dequeues(watched):
    watched.swap("c1", watched.manifest.raise_epoch())
    with pytest.raises(InvariantError, match="B4.*c0 of epoch 1 dequeues at 2"):
        watched.swap("c0", watched.manifest.dequeue(0))


def test_b5_an_overwrite_is_seen(watched):
    before = watched.manifest
    watched.append("p0", 3)
    with pytest.raises(InvariantError, match="B5"):
        watched.objects.put("p1", MANIFEST, before.append([Listing(name(4))]).data)


def test_b5_the_epoch_goes_back(watched):
    before = watched.manifest
    watched.swap("c1", before.raise_epoch())
    with pytest.raises(InvariantError, match="B5"):
        watched.objects.put("c0", MANIFEST, before.data)


def test_b5_a_batch_beside_itself(watched):
    with pytest.raises(InvariantError, match="B5.*beside itself"):
        watched.append("p0", 2)


def test_b5_a_twin_may_list_the_same_batch(watched):
    watched.append("p1", 2)


def test_b5_going_on_behind_a_lost_manifest(world, watched):
    process = SimpleNamespace(name="p0")
    watched.told(process, "get", MANIFEST, watched.objects.get(MANIFEST))
    watched.objects.delete(OPERATOR, MANIFEST)
    with pytest.raises(InvariantError, match="B5.*went back"):
        watched.objects.create("p0", MANIFEST, Manifest.empty(MANIFEST).raise_epoch().data)


def test_b6_a_listed_batch_is_deleted(world, watched):
    with pytest.raises(InvariantError, match="B6.*it is listed"):
        watched.objects.delete("c0", name(1))


def test_b6_somebody_elses_object_is_deleted(watched):
    watched.objects.put(OPERATOR, f"{PREFIX}/notes.txt", b"")
    with pytest.raises(InvariantError, match="B6.*no batch of ours"):
        watched.objects.delete("c0", f"{PREFIX}/notes.txt")


def test_b6_an_orphan_is_left(watched):
    watched.objects.put("p0", name(9), batch(b"9"))
    with pytest.raises(InvariantError, match="B6.*orphans"):
        watched.oracle.judge_orphans()


def test_the_decoder_agrees_with_the_codec(watched):
    version = decoder.manifest(watched.manifest.data)
    assert (version.next_sequence, version.epoch) == (2, 1)
    assert [entry.location for entry in version.entries] == [name(1), name(2)]
    assert version.entries[0].payloads == (b"m",)
    assert decoder.batch(batch(b"a", b"")) == [b"a", b""]
    assert decoder.name_ms(name(1, age_ms=7)) == 1_700_000_000_000 - 7
    assert decoder.identity(name(5)) == f"{5:016d}"
