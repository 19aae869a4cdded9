"""One process's way to the store: requests that take time, get lost, come late, or are held.

A request leaves its process, arrives at the store and is answered: three moments, and whatever
befalls the process in between leaves the request where it is. Faults are those of faults.py.
"""

from __future__ import annotations

import enum

from faults import READS, Fault, possible

from walengine.buffer import StorageError
from walengine.buffer.errors import ObjectTooLargeError
from walengine.buffer.store import NOT_MODIFIED, ObjectInfo, StoredObject

NEVER_DONE = {
    Fault.FAIL_BEFORE,
    Fault.LOST_REQUEST,
    Fault.UNAVAILABLE,
    Fault.CONFLICT,
    Fault.TRUNCATED,
}


class Point(enum.Enum):
    """Where a process can be hit, counted by its requests."""

    BEFORE = "the request has not left"
    BETWEEN = "the request has left, no answer is back"


class Client:
    """A store's client, with the weather of the world between it and the objects.

    Attributes:
        ambush: Called at each point of each request as ambush(point, verb, name); it may strike.
        witness: Its asked() and answered() are called when the process asks, and is answered.
    """

    url = "sim://store"

    def __init__(self, process, objects, weather, witness):
        self.process = process
        self.objects = objects
        self.weather = weather
        self.witness = witness
        self.ambush = None

    async def get(self, name, *, max_bytes=None):
        return await self._call("get", name, lambda: self._get(name, max_bytes))

    async def get_if_changed(self, name, etag, *, max_bytes=None):
        def do():
            there = self.objects.get(name)
            if there is not None and there.etag == etag:
                return NOT_MODIFIED
            return self._get(name, max_bytes)

        return await self._call("get_if_changed", name, do)

    async def head(self, name):
        def do():
            there = self.objects.get(name)
            return there and ObjectInfo(name, len(there.data), there.modified_ms)

        return await self._call("head", name, do)

    async def put(self, name, data):
        data = bytes(data)
        who = self.process.name
        await self._call("put", name, lambda: self.objects.put(who, name, data) and None, data)

    async def create(self, name, data):
        data = bytes(data)
        who = self.process.name
        return await self._call("create", name, lambda: self.objects.create(who, name, data), data)

    async def replace(self, name, data, etag):
        data = bytes(data)
        who = self.process.name
        return await self._call(
            "replace", name, lambda: self.objects.replace(who, name, data, etag), data
        )

    async def list(self, prefix=""):
        def do():
            return [
                ObjectInfo(name, len(there.data), there.modified_ms)
                for name, there in self.objects.below(prefix)
            ]

        for info in await self._call("list", prefix, do):
            yield info

    async def delete(self, name):
        await self._call("delete", name, lambda: self.objects.delete(self.process.name, name))

    async def aclose(self):
        pass

    def _get(self, name, max_bytes):
        there = self.objects.get(name)
        if there is None:
            return None
        if max_bytes is not None and len(there.data) > max_bytes:
            return ObjectTooLargeError(f"{name} is too large", object=name, max_bytes=max_bytes)
        return StoredObject(there.data, there.etag)

    async def _call(self, verb, name, do, data=None):
        answer = self.process.loop.create_future()
        self.witness.asked(self.process, verb, name, data)
        self._strike(Point.BEFORE, verb, name)
        if self.process.frozen or self.weather.dawdles():
            delay_s = self.weather.latency_s()
            self.process.world.after(
                delay_s, self._leave, verb, name, do, answer, process=self.process
            )
        else:
            self._leave(verb, name, do, answer)
        result = await answer
        if isinstance(result, StorageError):
            raise result
        return result

    def _leave(self, verb, name, do, answer):
        """The request is sent. From here on it needs its process no more."""
        weather, after = self.weather, self.process.world.after
        fault = weather.fault(verb, name)
        if fault is not None:
            self.process.world.note(self.process.name, verb, name, fault.name)
            assert fault in possible(verb)
        there_s, back_s = weather.latency_s(), weather.latency_s()
        if fault is Fault.SLOW:
            there_s += weather.slow_s()
            back_s += weather.slow_s()
        if fault in (None, Fault.SLOW):
            after(there_s, self._arrive, verb, name, do, answer, back_s)
        elif fault is Fault.PRECONDITION:
            after(there_s + back_s, self._answer, verb, name, answer, None, process=self.process)
        else:
            self._fail(fault, verb, name, do, answer, there_s)
        self._strike(Point.BETWEEN, verb, name)

    def _fail(self, fault, verb, name, do, answer, there_s):
        weather, world = self.weather, self.process.world
        unclear = verb not in READS and fault is not Fault.FAIL_BEFORE
        gives_up_s = there_s + weather.latency_s()
        if fault in {Fault.TIMEOUT, Fault.LATE}:
            gives_up_s = weather.timeout_s()
        done = fault in {Fault.LOST_REPLY, Fault.LATE}
        if done or (fault is Fault.TIMEOUT and world.chance.random() < 0.5):
            late_s = gives_up_s + weather.late_s() if fault is Fault.LATE else there_s
            world.after(late_s, self._arrive, verb, name, do, None, 0.0)
        error = StorageError(f"{verb} {name}: {fault.value}", object=name, unclear=unclear)
        world.after(gives_up_s, self._answer, verb, name, answer, error, process=self.process)

    def _arrive(self, verb, name, do, answer, back_s):
        """The store does it."""
        result = do()
        world = self.process.world
        world.note(self.process.name, verb, name, _summary(result))
        if answer is not None:
            world.after(back_s, self._answer, verb, name, answer, result, process=self.process)

    def _answer(self, verb, name, answer, result):
        if not answer.done():
            self.witness.answered(self.process, verb, name, result)
            answer.set_result(result)

    def _strike(self, point, verb, name):
        if self.ambush is not None:
            self.ambush(point, verb, name)


def _summary(result):
    if result is None or isinstance(result, str):
        return result
    if isinstance(result, StoredObject):
        return len(result.data)
    if isinstance(result, list):
        return len(result)
    return type(result).__name__
