"""Marks and fixtures of the asyncio writer's suites."""

import asyncio
import contextlib

import pytest
import uvloop
from engines import config
from places import memory_path

from walengine import AsyncWalWriter, WalError, _native
from walengine.aio import writer

__all__ = ["memory_path"]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _no_faults():
    yield
    _native._fault_clear()


@pytest.fixture
def short_runs(monkeypatch):
    """Three records of one call are many already: joined, and a stage of their own."""
    monkeypatch.setattr(writer, "RUN_RECORDS_MIN", 3)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=pytest.mark.not_quick)])
def run(request):
    """run(coroutine) on each kind of loop."""

    def run_it(coroutine):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(coroutine)

    return run_it


@pytest.fixture
def with_wal(engine, log, run):
    """with_wal(body, **fields) runs body(wal) on a fresh log, on each engine and loop."""

    def run_it(body, io=None, **fields):
        async def main():
            wal = await AsyncWalWriter.open(log, config(io, **fields))
            try:
                return await asyncio.wait_for(body(wal), 20)
            finally:
                _native._fault_clear()
                with contextlib.suppress(WalError):
                    await wal.aclose()

        return run(main())

    return run_it
