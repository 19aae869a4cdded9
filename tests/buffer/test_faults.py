"""The store that fails as told keeps its word: what it says happened is what happened."""

import asyncio
import random

import pytest
from faults import OF_CONDITIONAL, OF_READS, Fault, FaultyStore, scripted, seeded

from walengine.buffer import StorageError
from walengine.buffer.store.memory import MemoryStore

APPLIED = {Fault.LOST_REPLY, Fault.LATE, Fault.SLOW}


@pytest.fixture
def fresh():
    return lambda: MemoryStore(f"faults {random.random()}")


@pytest.mark.parametrize("fault", OF_CONDITIONAL)
def test_what_each_fault_leaves_behind(run, fresh, fault):
    async def body():
        store = FaultyStore(fresh(), scripted(fault))
        (outcome,) = await asyncio.gather(store.create("a", b"1"), return_exceptions=True)
        await asyncio.gather(*store._late)
        there = await store.inner.get("a") is not None
        if fault is not Fault.TIMEOUT:
            assert there is (fault in APPLIED)
        if fault is Fault.PRECONDITION:
            assert outcome is None
        elif fault is Fault.SLOW:
            assert isinstance(outcome, str)
        else:
            assert isinstance(outcome, StorageError)
            assert outcome.unclear is (fault is not Fault.FAIL_BEFORE)
        assert store.history[0][1] is fault

    run(body())


@pytest.mark.parametrize("fault", OF_READS)
def test_reads_fail_without_being_unclear(run, fresh, fault):
    async def body():
        store = FaultyStore(fresh(), scripted(None, fault))
        await store.put("a", b"1")
        if fault is Fault.SLOW:
            assert (await store.get("a")).data == b"1"
            return
        with pytest.raises(StorageError) as caught:
            await store.get("a")
        assert not caught.value.unclear

    run(body())


def test_the_same_seed_fails_the_same_way(run, fresh, seed):
    async def history():
        store = FaultyStore(fresh(), seeded(seed, 0.5), seed=seed, slow_s=0)
        for i in range(200):
            name = f"{i // 3}"
            call = (store.put, store.get, store.create)[i % 3]
            data = () if i % 3 == 1 else (b"",)
            await asyncio.gather(call(name, *data), return_exceptions=True)
        await store.aclose()
        return store.history

    first, second = run(history()), run(history())
    assert first == second
    assert 50 < sum(fault is not None for _, fault in first) < 150
