"""What a program did with an AsyncWalWriter, what it was told, and whether the log agrees.

Every call goes through a History. It notes the records in the order in which the calls began, which
is the order in which they must stand in the log, and what each call came to:

    staged   its fate is open: it must be in the log in the end, unless a failure came between
    durable  somebody was told so: it must be in the log, whatever came later
    doubtful poison, a full log or a lost end came between: it may be in the log
    refused  its caller was told that it was not taken: it is not in the log, or in doubt

The loops count how often each future is settled: a wait ends exactly once.
"""

from __future__ import annotations

import asyncio

import uvloop

from walengine import AsyncWalWriter, WalClosedError, WalError, WalPoisonedError, recover, replay

__all__ = ["FACTORIES", "History", "assert_settled_once"]

STAGED, DURABLE, DOUBTFUL, REFUSED = "staged", "durable", "doubtful", "refused"


class Counted(asyncio.Future):
    """A future that knows how often somebody settled it."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.settled = 0
        loop.counted.append(self)

    def set_result(self, result: object) -> None:
        self.settled += 1
        super().set_result(result)

    def set_exception(self, error: BaseException) -> None:
        self.settled += 1
        super().set_exception(error)


class CountingLoop(asyncio.SelectorEventLoop):
    """Asyncio's loop with counted futures."""

    def __init__(self) -> None:
        self.counted = []
        super().__init__()

    def create_future(self) -> Counted:
        return Counted(loop=self)


class CountingUvloop(uvloop.Loop):
    """The same of uvloop."""

    def __init__(self) -> None:
        self.counted = []
        super().__init__()

    def create_future(self) -> Counted:
        return Counted(loop=self)


FACTORIES = (CountingLoop, CountingUvloop)


def assert_settled_once() -> None:
    """Every future of the running loop that is not waited for any more was settled once."""
    loop = asyncio.get_running_loop()
    left = [future for future in loop.counted if not future.done()]
    assert all(future.settled == 1 for future in loop.counted if future.done() and not_gone(future))
    assert not left, f"{len(left)} waits were never ended"


def not_gone(future: asyncio.Future) -> bool:
    return not future.cancelled()


class Entry:
    """One record of the history."""

    def __init__(self, data: bytes, group: object) -> None:
        self.data = data
        self.state = STAGED
        self.group = group  # of an atomic append_many, or None
        self.lsn = 0
        self.how = ""
        self.why = ""  # it was refused


class History:
    """The records of all writers that one log had, in the order of their calls."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.waits_ended = 0
        self.poisonings = 0
        self.troubles: list[str] = []
        self.may_refuse = False  # the log may be full, or without memory

    # ---- calls: each returns what the writer's call returned, or the WalError that it raised

    async def durable(self, wal: AsyncWalWriter, size: int) -> object:
        (entry,) = self._begin(1, size)
        return await self._call(wal.append_durable(entry.data), [entry], durable=True)

    async def plain(self, wal: AsyncWalWriter, size: int) -> object:
        (entry,) = self._begin(1, size)
        return await self._call(wal.append(entry.data), [entry])

    async def batched(self, wal: AsyncWalWriter, size: int) -> object:
        (entry,) = self._begin(1, size)
        result = await self._call(wal.append_batched(entry.data), [entry], gives_lsns=False)
        if result == 0 and size:
            entry.state = DURABLE
            entry.how = "batched"
        return result

    async def many(
        self, wal: AsyncWalWriter, count: int, size: int, *, durable: bool, atomic: bool
    ) -> object:
        group = object() if atomic else None
        entries = self._begin(count, size, group)
        call = wal.append_many([e.data for e in entries], durable=durable, atomic=atomic)
        return await self._call(call, entries, durable=durable, keeps=not atomic)

    async def flush(self, wal: AsyncWalWriter) -> object:
        before = list(self.entries)
        result = await self._call(wal.flush_batch(), [])
        if result is None:
            for entry in before:
                if entry.state == STAGED:
                    entry.state = DURABLE
                    entry.how = "flush"
        return result

    def _begin(self, count: int, size: int, group: object = None) -> list[Entry]:
        first = len(self.entries)
        new = [Entry(b"%d:" % (first + i) + b"." * size, group) for i in range(count)]
        self.entries += new
        return new

    async def _call(
        self, call: object, entries: list[Entry], *, durable=False, keeps=False, gives_lsns=True
    ) -> object:
        try:
            result = await call
        except WalPoisonedError as error:
            self.note_poison()
            return error
        except WalError as error:
            self._note_refusal(entries, error, keeps=keeps)
            return error
        except asyncio.CancelledError:
            if self.may_refuse:  # in this very moment, perhaps
                self._note_doubt(entries)
            raise
        finally:
            self.waits_ended += 1
        if gives_lsns and entries:
            lsns = result if isinstance(result, range) else [result]
            assert len(lsns) == len(entries)
            for lsn, entry in zip(lsns, entries, strict=True):
                entry.lsn = lsn
        if durable:
            for entry in entries:
                entry.state = DURABLE
                entry.how = "own"
        return result

    def _note_refusal(self, entries: list[Entry], error: WalError, *, keeps: bool) -> None:
        taken = keeps and not isinstance(error, WalClosedError) and "reopened" not in str(error)
        for entry in entries:
            entry.state = STAGED if taken else REFUSED
            entry.why = str(error)  # the error itself holds frames, and these the writer

    @staticmethod
    def _note_doubt(entries: list[Entry]) -> None:
        for entry in entries:
            if entry.state == STAGED:
                entry.state = DOUBTFUL

    # ---- what befalls all of them

    def note_poison(self) -> None:
        self.poisonings += 1
        self.note_loss()

    def note_trouble(self, _loop: object, context: dict) -> None:
        """What a loop says at the end of a task whose caller went away, or about a bug."""
        is_cancelled_call = isinstance(context.get("exception"), WalError) and "future" in context
        if not is_cancelled_call:
            self.troubles.append(f"{context['message']}: {context.get('exception')!r}")

    def note_loss(self) -> None:
        """Whatever was not durable may be gone."""
        self._note_doubt(self.entries)

    # ---- the judgement

    def judge(self, log: object) -> int:
        """Compare with what the log holds; return how many records that is."""
        found = [
            (record.lsn, int(record.data.split(b":")[0]), record.data) for record in replay(log)
        ]
        places = [place for _, place, _ in found]
        assert places == sorted(set(places)), "a record was doubled or overtaken"
        lsns = dict(zip(places, (lsn for lsn, _, _ in found), strict=True))
        begin = recover(log).first_lsn
        for place, entry in enumerate(self.entries):
            was_trimmed = begin > 1 and (not places or place < places[0])
            if place in lsns:
                assert entry.state != REFUSED, f"record {place} is there, but: {entry.why}"
                assert found[places.index(place)][2] == entry.data
                known = entry.state == DURABLE and entry.lsn
                assert not known or lsns[place] == entry.lsn, f"record {place} has another LSN"
            else:
                lost = entry.state in {STAGED, DURABLE} and not was_trimmed
                about = f"LSN {entry.lsn}, {entry.how}; there are {places[:2]} to {places[-2:]}"
                assert not lost, f"record {place}, {entry.state}, is lost: {about}"
        self._judge_groups(set(places), begin)
        return len(found)

    def _judge_groups(self, places: set[int], begin: int) -> None:
        groups: dict[object, list[int]] = {}
        for place, entry in enumerate(self.entries):
            if entry.group is not None:
                groups.setdefault(entry.group, []).append(place)
        for group in groups.values():
            there = [place in places for place in group]
            assert len(set(there)) == 1 or begin > 1, "half of an atomic group"
