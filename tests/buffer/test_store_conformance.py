"""The contract of port.py, on every store: memory, a directory, moto and SeaweedFS."""

import asyncio
import random
import threading
import time

import pytest

from walengine.buffer import ObjectTooLargeError, StorageError
from walengine.buffer.store import NOT_MODIFIED
from walengine.buffer.store.probe import make_store, open_store, probe

ODD_NAMES = [
    "a", "a/b/c/d/e", "ingest/01JQ8V3K7M5Z9XW2C4T6R8B1N3.batch", "with space", " edges ", "ü/ñ",
    "q?x=1&y=2", "percent%2Fencoded", "plus+plus", "#hash", 'quote"quote', "it's", "~tilde", "*",
    "<>", "a=b;c,d", "[x]{y}|z^`", "...", ".hidden", "x" * 255, "/".join(["y" * 120] * 8), "🦀",
    "日本",
]  # fmt: skip
HOSTILE_NAMES = [
    "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "a\\b", "a\x00b",
    "a\nb", "a\x7fb", "a\ud800b", "x" * 256, "y/" * 600 + "y", ".walengine/lock", "a/.walengine",
]  # fmt: skip


@pytest.fixture
def check(store_config, run):
    """check(function) runs it with an open store and closes that."""

    def check(function):
        async def with_store():
            store = make_store(store_config)
            try:
                return await function(store)
            finally:
                await store.aclose()

        return run(with_store())

    return check


async def names_of(store, prefix=""):
    return sorted([info.name async for info in store.list(prefix)])


def test_create_writes_only_what_is_absent(check):
    async def body(store):
        assert await store.get("a") is None
        assert await store.head("a") is None
        first = await store.create("a", b"1")
        assert first is not None
        assert await store.create("a", b"2") is None
        found = await store.get("a")
        assert (found.data, found.etag) == (b"1", first)

    check(body)


def test_replace_writes_only_over_what_is_known(check):
    async def body(store):
        assert await store.replace("a", b"0", '"0123"') is None
        assert await store.get("a") is None
        first = await store.create("a", b"1")
        second = await store.replace("a", b"2", first)
        assert second not in {None, first}
        assert await store.replace("a", b"3", first) is None
        found = await store.get("a")
        assert (found.data, found.etag) == (b"2", second)
        await store.delete("a")
        assert await store.replace("a", b"4", second) is None
        assert await store.get("a") is None

    check(body)


def test_put_writes_over_anything_and_changes_the_etag(check):
    async def body(store):
        first = await store.create("a", b"1")
        await store.put("a", b"2")
        assert await store.replace("a", b"3", first) is None
        await store.put("a", memoryview(bytearray(b"23"))[:1])
        assert (await store.get("a")).data == b"2"

    check(body)


def test_a_read_follows_each_write(check):
    async def body(store):
        etag = await store.create("a", b"0")
        for i in range(1, 15):
            data = str(i).encode()
            etag = await store.replace("a", data, etag)
            assert (await store.get("a")).data == data
            info = await store.head("a")
            assert (info.name, info.size_bytes) == ("a", len(data))
            assert abs(info.last_modified_ms - time.time() * 1000) < 60_000

    check(body)


def test_get_if_changed_tells_new_from_known(check):
    async def body(store):
        assert await store.get_if_changed("a", '"0123"') is None
        first = await store.create("a", b"1")
        assert await store.get_if_changed("a", first) is NOT_MODIFIED
        second = await store.replace("a", b"22", first)
        found = await store.get_if_changed("a", first)
        assert (found.data, found.etag) == (b"22", second)
        with pytest.raises(ObjectTooLargeError):
            await store.get_if_changed("a", first, max_bytes=1)

    check(body)


@pytest.mark.parametrize("size", [0, 1, 100_000, 7_000_001])
def test_objects_of_any_size_come_back(check, size, seed):
    data = random.Random(seed).randbytes(size)

    async def body(store):
        await store.put("a", data)
        assert (await store.get("a")).data == data
        assert (await store.get("a", max_bytes=size)).data == data
        if size:
            with pytest.raises(ObjectTooLargeError, match=f"a has more than the {size - 1} bytes"):
                await store.get("a", max_bytes=size - 1)

    check(body)


def test_odd_names_are_names(check):
    async def body(store):
        for i, name in enumerate(ODD_NAMES):
            if name == "a":
                continue  # on a directory it excludes the next one
            etag = await store.create(name, b"%d" % i)
            assert etag is not None, name
            found = await store.get(name)
            assert (found.data, found.etag) == (b"%d" % i, etag), name
            assert await store.replace(name, b"x", etag) is not None, name
        names = sorted(set(ODD_NAMES) - {"a"})
        assert await names_of(store) == names
        for name in names:
            await store.delete(name)
        assert await names_of(store) == []

    check(body)


def test_hostile_names_reach_no_store(check):
    async def body(store):
        for name in HOSTILE_NAMES:
            for call in (
                store.get(name), store.head(name), store.put(name, b""), store.create(name, b""),
                store.replace(name, b"", "x"), store.delete(name), store.get_if_changed(name, "x"),
            ):  # fmt: skip
                with pytest.raises(ValueError):
                    await call
            if name:
                with pytest.raises(ValueError):
                    await names_of(store, name)
        with pytest.raises(TypeError):
            await store.get(b"a")
        assert await names_of(store) == []

    check(body)


def test_list_goes_by_whole_segments(check):
    async def body(store):
        for name in ("p/1", "p/2/3", "pp/4", "q", "p/5.x"):
            await store.put(name, b"12")
        assert await names_of(store, "p") == ["p/1", "p/2/3", "p/5.x"]
        assert await names_of(store, "p/2") == ["p/2/3"]
        assert await names_of(store, "absent") == []
        assert await names_of(store, "q") == []
        assert len(await names_of(store)) == 5
        (info,) = [info async for info in store.list("pp")]
        assert (info.name, info.size_bytes) == ("pp/4", 2)
        assert abs(info.last_modified_ms - time.time() * 1000) < 60_000

    check(body)


def test_list_has_more_than_one_page(check):
    """Goal: 1,000 objects are a page of S3's, 512 one of the directory's."""

    async def body(store):
        names = [f"p/{i:04}" for i in range(1100)]
        for i in range(0, len(names), 50):
            await asyncio.gather(*(store.put(name, b"") for name in names[i : i + 50]))
        assert await names_of(store, "p") == names
        async for _ in store.list("p"):
            break  # a list that is left early holds nothing up

    check(body)


def test_delete_is_done_once_and_no_error_twice(check):
    async def body(store):
        await store.put("p/a", b"1")
        await store.delete("p/a")
        await store.delete("p/a")
        await store.delete("never/was")
        assert await store.get("p/a") is None
        assert await store.create("p/a", b"2") is not None

    check(body)


def race(request, config, contest, threads=8):
    """Run contest(store, thread's number) in threads, each with a loop and a store of its own.

    moto looks at a condition and writes in two steps, so that two threads of its server can both
    pass: there the contests go one after the other.
    """
    turns = 1 if "[moto]" in request.node.name else threads
    results, barrier, turn = {}, threading.Barrier(threads), threading.Semaphore(turns)

    def one(number):
        async def body():
            store = make_store(config)
            try:
                results[number] = await contest(store, number)
            finally:
                await store.aclose()

        barrier.wait()
        with turn:
            asyncio.run(body())

    workers = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == threads
    return results


def test_one_of_eight_creates_each_of_twenty_objects(request, store_config, count):
    async def contest(store, number):
        data = b"%d" % number
        return [i for i in range(20) if await store.create(f"key/{i}", data) is not None]

    results = race(request, store_config, contest)
    assert sorted(i for won in results.values() for i in won) == list(range(20))
    count("creations raced for", 160)


def test_eight_count_to_twenty_each_and_none_is_lost(request, store_config, count, run):
    """Method: an optimistic counter; a lost or doubled increment shows in the sum."""

    async def contest(store, number):
        conflicts = done = 0
        while done < 20:
            found = await store.get("counter")
            data = b"%d" % (int(found.data) + 1)
            if await store.replace("counter", data, found.etag) is None:
                conflicts += 1
                await asyncio.sleep(random.uniform(0, 0.02))
            else:
                done += 1
        return conflicts

    async def start(store=None):
        store = make_store(store_config)
        await store.create("counter", b"0")
        await store.aclose()

    async def total():
        store = make_store(store_config)
        found = await store.get("counter")
        await store.aclose()
        return int(found.data)

    run(start())
    results = race(request, store_config, contest)
    assert run(total()) == 160
    count("increments", 160)
    count("conflicts met", sum(results.values()))


def test_a_closed_store_says_so(store_config, run):
    async def body():
        store = make_store(store_config)
        await store.put("a", b"")
        await store.aclose()
        await store.aclose()
        for call in (store.get("a"), store.put("a", b""), store.create("b", b"")):
            with pytest.raises(StorageError, match="closed"):
                await call

    run(body())


def test_the_probe_accepts_it_and_leaves_nothing(store_config, run):
    async def body():
        store = make_store(store_config)
        reading = await probe(store)
        assert abs(reading.skew_ms) <= reading.uncertainty_ms + 1000
        assert await names_of(store) == []
        await store.aclose()
        opened = await open_store(store_config)
        assert (await opened.store.get("a")) is None
        await opened.store.aclose()

    run(body())
