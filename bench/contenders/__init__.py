"""The contenders, one file each; this list names them without importing what they need."""

from __future__ import annotations

from importlib import import_module

CONTENDERS = {
    "walengine": "walengine_log:Walengine",
    "walengine direct_io": "walengine_log:WalengineDirect",
    "walengine pwrite": "walengine_log:WalenginePwrite",
    "walengine asyncio": "walengine_tasks:WalengineTasks",
    "walengine uvloop": "walengine_tasks:WalengineUvloop",
    "walengine asyncio direct_io": "walengine_tasks:WalengineTasksDirect",
    "walengine uvloop direct_io": "walengine_tasks:WalengineUvloopDirect",
    "os.write + fdatasync": "plain:Plain",
    "SQLite": "sqlite:Sqlite",
    "LMDB": "lmdb_environment:Lmdb",
    "LevelDB": "leveldb:LevelDb",
    "LevelDB in an executor": "leveldb_tasks:LevelDbTasks",
    "RocksDB": "rocksdb:RocksDb",
    "persist-queue": "persist_queue:PersistQueue",
}


def contender_class(name: str) -> type:
    """Import a contender's class.

    Raises:
        ImportError: Its package is not there.
    """
    module, _, attribute = CONTENDERS[name].partition(":")
    return getattr(import_module(f"contenders.{module}"), attribute)  # type: ignore[no-any-return]
