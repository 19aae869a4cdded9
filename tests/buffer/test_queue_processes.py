"""Six producers that are killed and started again, and a consumer: nothing lost, nothing doubled.

On a directory and on a real S3 server. The sink keeps identities, as buffer sinks do; its consumer
is replaced every now and then and goes on behind what the sink has stored.
"""

import asyncio
import contextlib
import random
import secrets
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import servers
from queue_child import store_of

from walengine.buffer import AsyncConsumer, ConsumerConfig
from walengine.buffer.location import identity_of

pytestmark = pytest.mark.not_quick

CHILD = Path(__file__).parent / "queue_child.py"
PRODUCERS = 6
SECONDS = 10
SECONDS_MAX = 30
PATIENCE_S = 3.0
POLL_S = 0.02
BATCHES_A_CONSUMER_MAX = 400


class Producers:
    """The nursery: which producers live, and what each life was told to be durable."""

    def __init__(self, place):
        self.process = subprocess.Popen(
            [sys.executable, CHILD, *place],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.durable = Counter()
        self.lives = [0] * PRODUCERS
        self.kills = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            name, call = line.split()
            assert int(call) == self.durable[name], "calls become durable in their order"
            self.durable[name] += 1

    def name(self, number):
        return f"p{number}.{self.lives[number]}"

    def command(self, *words):
        assert self.process.poll() is None, self.process.stderr.read()
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def start(self, number):
        self.lives[number] += 1
        self.command("start", self.name(number))

    async def kill_and_start(self, chance):
        """Kill one in the middle of its work: after some of its calls, or before its first."""
        number = chance.randrange(PRODUCERS)
        wanted = chance.choice((0, 0, 1, 5, 20))
        limit_s = asyncio.get_running_loop().time() + PATIENCE_S
        while self.durable[self.name(number)] < wanted:
            if asyncio.get_running_loop().time() > limit_s:
                break
            await asyncio.sleep(POLL_S)
        self.command("kill", self.name(number))
        self.kills += 1
        self.start(number)
        await asyncio.sleep(chance.uniform(0.0, 0.1))

    async def finish(self):
        self.command("finish")
        status = await asyncio.to_thread(self.process.wait)
        await asyncio.to_thread(self._reader.join)
        assert status == 0, self.process.stderr.read()

    def end(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Sink:
    """What an exactly-once sink stores in one transaction: position, identity, rows."""

    def __init__(self):
        self.sequence = None
        self.identities = set()
        self.rows = []
        self.doubled = 0

    def store(self, batch):
        self.sequence = batch.sequence
        identity = identity_of(batch.location)
        if identity in self.identities:
            self.doubled += 1
            return
        self.identities.add(identity)
        self.rows.extend(bytes(entry).decode() for entry in batch.entries)


async def consume(store, sink, chance, drained):
    """Consume until drained is set and the queue is empty; returns how many consumers it took."""
    config = ConsumerConfig(object_store=store)
    consumers = 0
    while True:
        consumers += 1
        left = chance.randint(1, BATCHES_A_CONSUMER_MAX)
        # The one before it is left as it is: fenced, with batches delivered and not acked.
        consumer = await AsyncConsumer.open(config, sink.sequence)
        try:
            while left:
                was_drained = drained.is_set()
                batch = await consumer.next_batch()
                if batch is None:
                    if was_drained:
                        return consumers
                    await asyncio.sleep(POLL_S)
                    continue
                sink.store(batch)
                left -= 1
                if left:
                    await consumer.ack(batch.sequence)
        finally:
            await consumer.aclose()


async def scenario(place, seconds, seed):
    chance = random.Random(seed)
    producers, sink, drained = Producers(place), Sink(), asyncio.Event()
    consuming = asyncio.create_task(consume(store_of(*place), sink, chance, drained))
    try:
        for number in range(PRODUCERS):
            producers.start(number)
        end_s = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end_s and not consuming.done():
            await producers.kill_and_start(chance)
        await producers.finish()
        drained.set()
        return producers, sink, await consuming
    finally:
        consuming.cancel()
        producers.end()


def judge(durable, rows):
    """Nothing durable is lost, nothing is there twice, each life's calls are in their order."""
    assert len(set(rows)) == len(rows), "doubled"
    calls = defaultdict(list)
    for row in rows:
        name, call, index = row.split()
        calls[name].append((int(call), int(index)))
    for name, found in calls.items():
        assert found == sorted(found), f"{name}: out of order"
        assert len({call for call, _ in found}) * 2 == len(found), f"{name}: half of a call"
    for name, count in durable.items():
        lost = set(range(count)) - {call for call, _ in calls[name]}
        assert not lost, f"{name}: lost {lost}"


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (["a 0 0", "a 0 1", "a 1 0", "a 1 1", "a 0 0"], "doubled"),
        (["a 1 0", "a 1 1", "a 0 0", "a 0 1"], "out of order"),
        (["a 0 0", "a 1 0", "a 1 1"], "half of a call"),
        (["a 0 0", "a 0 1", "a 2 0", "a 2 1"], "lost {1}"),
        (["b 0 0", "b 0 1"], "lost {0, 1}"),
    ],
)
def test_the_judge_sees_what_is_wrong(rows, verdict):
    with pytest.raises(AssertionError, match=verdict):
        judge({"a": 2}, rows)


@pytest.fixture(params=["local", "seaweedfs"])
def place(request, tmp_path):
    """An empty store, as queue_child.py takes it."""
    if request.param == "local":
        return "local", str(tmp_path / "store")
    endpoint = request.getfixturevalue("seaweedfs_endpoint")
    bucket = f"processes{secrets.token_hex(4)}"
    servers.make_bucket(endpoint, bucket)
    return "seaweedfs", endpoint, bucket


def test_six_producers_killed_and_started_again(place, run, seed, scale, count):
    """Goal: what a real process was told is so, whoever dies. Method: SIGKILL, and the sink."""
    kind = place[0]
    seconds = max(1.0, min(SECONDS_MAX, SECONDS * scale))
    producers, sink, consumers = run(scenario(place, seconds, seed))
    judge(producers.durable, sink.rows)
    by_producer = Counter()
    for name, durable in producers.durable.items():
        by_producer[name.split(".")[0]] += durable
    assert len(sink.rows) >= 2 * sum(by_producer.values()) > 0
    count(f"kills, {kind}", producers.kills)
    count(f"entries, {kind}", len(sink.rows))
    count(f"batches listed twice and stored once, {kind}", sink.doubled)
    count(f"consumers one after the other, {kind}", consumers)
    count(f"durable calls of the most successful producer, {kind}", max(by_producer.values()))
    count(f"durable calls of the least successful one, {kind}", min(by_producer.values()))
