"""The sink's database: transactions, backups, and connections that break while one commits."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class State:
    """What is committed; the rows, and what an exactly-once sink keeps beside them."""

    sequence: int | None = None
    identities: set = field(default_factory=set)
    rows: list = field(default_factory=list)

    def copy(self):
        return State(self.sequence, set(self.identities), list(self.rows))


class ConnectionLostError(Exception):
    """The connection broke; whether the transaction was committed is not known."""


class Database:
    """One database, for all consumers that write into it.

    Attributes:
        watch: Called with the number of transactions, after each one that changed something.
    """

    def __init__(self, world, watch):
        self.world = world
        self.watch = watch
        self.transactions = 0
        self.state = State()
        self.backup = None

    def back_up(self):
        self.backup = self.state.copy()
        self.world.note("database", "is backed up at", self.state.sequence)

    def restore(self):
        """Go back to the backup."""
        self.world.note("database", "is restored to", self.backup.sequence)
        self.state = self.backup.copy()

    def transact(self, known, sequence, identity, rows):
        """The sink's transaction; False if it changed nothing, since somebody else was here.

        Args:
            known: The stored sequence that the sink knows; None: it found none.
            sequence: The batch's.
            identity: The batch's; a known one is not written again. None: the sink does not look.
            rows: What to write.
        """
        state = self.state
        if state.sequence != known:
            return False
        state.sequence = sequence
        if identity is None or identity not in state.identities:
            state.identities.add(identity)
            state.rows.extend((sequence, row) for row in rows)
        self.transactions += 1
        self.watch(self.transactions)
        return True


class Connection:
    """A process's connection: transactions take time, and may break it before or after."""

    def __init__(self, process, database, weather):
        self.process = process
        self.database = database
        self.weather = weather

    async def sequence(self):
        return await self._call(lambda: self.database.state.sequence)

    async def transact(self, *transaction):
        return await self._call(lambda: self.database.transact(*transaction))

    async def _call(self, do):
        world, process = self.process.world, self.process
        answer = process.loop.create_future()

        def commit():
            result = None if breaks == "before" else do()
            world.note(process.name, "database", breaks, result)
            if breaks is not None:
                result = ConnectionLostError()
            world.after(self.weather.latency_s(), reply, result, process=process)

        def reply(result):
            if not answer.done():
                answer.set_result(result)

        breaks = self.weather.connection_breaks()
        # It has begun: a frozen process's transaction is still open, and is committed by it.
        world.after(self.weather.latency_s(), commit, process=process)
        result = await answer
        if isinstance(result, ConnectionLostError):
            raise result
        return result
