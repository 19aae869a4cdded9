"""Databases as sinks: every batch of a queue in a table, exactly once.

``_core.py`` has the rule, ``_port.py`` what it asks of a database; ``postgres.py`` and
``sqlite.py`` do it.
"""

from walengine.buffer.database._async import AsyncDatabaseSink
from walengine.buffer.database._core import DatabaseSink, DatabaseSinkStats
from walengine.buffer.database._port import Row, ToRows
from walengine.buffer.database._rows import covered
from walengine.buffer.database.postgres import AsyncPostgresSink, PostgresSink
from walengine.buffer.database.sqlite import AsyncSqliteSink, SqliteSink

__all__ = [
    "AsyncDatabaseSink",
    "AsyncPostgresSink",
    "AsyncSqliteSink",
    "DatabaseSink",
    "DatabaseSinkStats",
    "PostgresSink",
    "Row",
    "SqliteSink",
    "ToRows",
    "covered",
]
