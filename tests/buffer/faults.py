"""A store that fails as told: around any other, with a plan, and the same each time.

The plan is asked before each call and answers with a fault or None. A seeded one is made by
``seeded``. Latencies are slept by the function that is handed in, so that a simulation can use its
own clock.
"""

import asyncio
import enum
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from walengine.buffer import StorageError
from walengine.buffer.store import ObjectInfo, ObjectStore, StoredObject


class Fault(enum.Enum):
    FAIL_BEFORE = "the connection was refused: nothing was done, and that is known"
    LOST_REQUEST = "the request was lost: nothing was done, and nobody knows"
    LOST_REPLY = "the reply was lost: it was done, and nobody knows"
    UNAVAILABLE = "503: nothing was done, and nobody knows"
    TIMEOUT = "no answer in time: whether it is done is the plan's coin"
    LATE = "no answer in time, and it is done later"
    CONFLICT = "409: another write was under way; nothing was done, and nobody knows"
    PRECONDITION = "412 though the condition holds: None, and nothing was done"
    TRUNCATED = "the body broke off: a read's StorageError"
    SLOW = "it takes long and succeeds"


READS = ("get", "get_if_changed", "head", "list")
CONDITIONAL = ("create", "replace")
# What each kind of call can meet.
OF_READS = (Fault.FAIL_BEFORE, Fault.UNAVAILABLE, Fault.TIMEOUT, Fault.TRUNCATED, Fault.SLOW)
OF_WRITES = tuple(fault for fault in Fault if fault not in {Fault.TRUNCATED, Fault.PRECONDITION,
                                                            Fault.CONFLICT})  # fmt: skip
OF_CONDITIONAL = (*OF_WRITES, Fault.PRECONDITION, Fault.CONFLICT)


@dataclass(frozen=True)
class Call:
    """What is about to be asked of the store; number counts from 0."""

    number: int
    verb: str
    name: str


Plan = Callable[[Call], Fault | None]
Sleep = Callable[[float], Awaitable[None]]


def possible(verb: str) -> tuple[Fault, ...]:
    if verb in READS:
        return OF_READS
    return OF_CONDITIONAL if verb in CONDITIONAL else OF_WRITES


def seeded(seed: int, rate: float) -> Plan:
    """Fail this share of the calls, each in one of the ways that it can."""
    chance = random.Random(seed)

    def plan(call: Call) -> Fault | None:
        hit, which = chance.random() < rate, chance.random()
        faults = possible(call.verb)
        return faults[int(which * len(faults))] if hit else None

    return plan


def scripted(*faults: Fault | None) -> Plan:
    """Give the calls these faults in turn, and none behind them."""
    return lambda call: faults[call.number] if call.number < len(faults) else None


class FaultyStore:
    """A store around another one that fails by a plan.

    Attributes:
        history: Every call with its fault, in order.
    """

    def __init__(
        self, inner: ObjectStore, plan: Plan, *, seed: int = 0,
        sleep: Sleep = asyncio.sleep, latency_s: Callable[[], float] = lambda: 0.0,
        slow_s: float = 0.01,
    ):  # fmt: skip
        self.inner = inner
        self.history: list[tuple[Call, Fault | None]] = []
        self._plan = plan
        self._coin = random.Random(seed)
        self._sleep = sleep
        self._latency_s = latency_s
        self._slow_s = slow_s
        self._late: set[asyncio.Task] = set()

    @property
    def url(self) -> str:
        return self.inner.url

    async def get(self, name, *, max_bytes=None) -> StoredObject | None:
        return await self._call("get", name, lambda: self.inner.get(name, max_bytes=max_bytes))

    async def get_if_changed(self, name, etag, *, max_bytes=None):
        return await self._call(
            "get_if_changed", name,
            lambda: self.inner.get_if_changed(name, etag, max_bytes=max_bytes),
        )  # fmt: skip

    async def head(self, name) -> ObjectInfo | None:
        return await self._call("head", name, lambda: self.inner.head(name))

    async def put(self, name, data) -> None:
        await self._call("put", name, lambda: self.inner.put(name, data))

    async def create(self, name, data) -> str | None:
        return await self._call("create", name, lambda: self.inner.create(name, data))

    async def replace(self, name, data, etag) -> str | None:
        return await self._call("replace", name, lambda: self.inner.replace(name, data, etag))

    async def list(self, prefix="") -> AsyncIterator[ObjectInfo]:
        async def all_of_it():
            return [info async for info in self.inner.list(prefix)]

        for info in await self._call("list", prefix, all_of_it):
            yield info

    async def delete(self, name) -> None:
        await self._call("delete", name, lambda: self.inner.delete(name))

    async def aclose(self) -> None:
        """Let what is late happen, then close."""
        await asyncio.gather(*self._late)
        await self.inner.aclose()

    async def _call(self, verb, name, do):
        call = Call(len(self.history), verb, name)
        fault = self._plan(call)
        self.history.append((call, fault))
        assert fault is None or fault in possible(verb), f"{verb} cannot meet {fault}"
        if wait_s := self._latency_s():
            await self._sleep(wait_s)
        if fault is None:
            return await do()
        return await self._fail(fault, call, do)

    async def _fail(self, fault, call, do):
        if fault is Fault.PRECONDITION:
            return None
        if fault in {Fault.SLOW, Fault.TIMEOUT, Fault.LATE}:
            await self._sleep(self._slow_s)
        if fault is Fault.SLOW:
            return await do()
        if fault is Fault.LOST_REPLY or (fault is Fault.TIMEOUT and self._coin.random() < 0.5):
            await do()
        if fault is Fault.LATE:
            self._late.add(asyncio.ensure_future(self._later(do)))
        unclear = call.verb not in READS and fault is not Fault.FAIL_BEFORE
        raise StorageError(
            f"{self.url}: {call.verb} {call.name}: {fault.value}", object=call.name, unclear=unclear
        )

    async def _later(self, do):
        await self._sleep(self._slow_s)
        await do()
