"""Fixtures of the buffer's suites: the four stores, each behind the same port."""

import asyncio
import secrets
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from needs import needs_package, needs_postgres, needs_s3_server
from places import memory_path  # noqa: F401 (a fixture)

from walengine.buffer import ObjectStoreConfig
from walengine.buffer.store.local import LocalStore
from walengine.buffer.store.probe import make_store

STORES = ("memory", "local", "moto", "seaweedfs")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """URL of moto's server, one for each process of a test run."""
    needs_package("moto")
    needs_package("obstore")
    with servers.moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def seaweedfs_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real S3 server, one for each process of a test run."""
    needs_s3_server(Path(sys.executable).parent)
    needs_package("obstore")
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL, one for each process of a test run."""
    programs = needs_postgres()
    needs_package("psycopg")
    import postgres_server  # noqa: PLC0415 (psycopg is an extra)

    with postgres_server.postgres(programs) as server:
        yield server


@pytest.fixture(params=STORES)
def store_config(request: pytest.FixtureRequest) -> ObjectStoreConfig:
    """An empty store of each kind: a bucket, a directory or a name of its own."""
    fresh = f"t{secrets.token_hex(8)}"
    if request.param == "memory":
        return ObjectStoreConfig.InMemory(fresh)
    if request.param == "local":
        return ObjectStoreConfig.Local(str(request.getfixturevalue("tmp_path") / "store"))
    endpoint = request.getfixturevalue(f"{request.param}_endpoint")
    if request.param == "seaweedfs":
        # A new bucket takes it a second, and volumes of the disk.
        asyncio.run(empty(servers.bucket(endpoint)))
        return servers.bucket(endpoint)
    servers.make_bucket(endpoint, fresh)
    return servers.bucket(endpoint, fresh)


async def empty(config: ObjectStoreConfig) -> None:
    store = make_store(config)
    names = [info.name async for info in store.list()]
    for i in range(0, len(names), 100):
        await asyncio.gather(*(store.delete(name) for name in names[i : i + 100]))
    await store.aclose()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """run(coroutine) in an event loop of its own, which must end with nothing left over."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def alone() -> Any:
            result = await coroutine
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"still running: {left}"
            return result

        return asyncio.run(alone())

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def check(root, run):
    """check(function) runs it with the store of root and closes that."""

    def check(function, **options):
        async def with_store():
            store = LocalStore(root, **options)
            try:
                return await function(store)
            finally:
                await store.aclose()

        return run(with_store())

    return check
