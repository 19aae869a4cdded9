"""docs/BUFFER.md: what it shows runs, and what it lists is there."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from databases import PostgresPlace

from walengine.buffer import ConsumerConfig, ProducerConfig, SqliteSink
from walengine.buffer.database import _postgres_tables as tables
from walengine.cli.buffer import buffer

pytestmark = pytest.mark.not_quick

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "BUFFER.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return found


def run_the_program(place: Path) -> list[tuple[str, str]]:
    """Run it, and return what is in its table."""
    command = [sys.executable, "-W", "error", "-c", block("python")]
    subprocess.run(command, cwd=place, check=True)
    with closing(sqlite3.connect(place / "shop.db")) as database:
        return database.execute("SELECT shop, text FROM shop_orders ORDER BY rowid").fetchall()


def test_the_program_runs_and_runs_again(tmp_path):
    orders = [("shop 7", "order 1"), ("shop 7", "order 2")]
    assert run_the_program(tmp_path) == orders
    assert run_the_program(tmp_path) == orders * 2


def test_the_commands_run_and_then_the_program(tmp_path):
    """Method: in one directory, from the top, as a reader would."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    outputs = []
    for line in block("console").replace("\\\n", "").splitlines():
        command = ["sh", "-c", line.removeprefix("$ ")]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, check=False
        )
        assert done.returncode == 0, (line, done.stderr)
        outputs.append(done.stdout)
    assert outputs[3] == b"durable 1\n"
    assert outputs[4] == b'{"id": 4, "who": "Ann"}\n'
    assert run_the_program(tmp_path) == [("shop 7", "order 1"), ("shop 7", "order 2")]


def test_the_file_is_a_configuration_of_both_sides():
    values = tomllib.loads(block("toml"))
    producer, consumer = values.pop("producer"), values.pop("consumer")
    assert ProducerConfig.from_dict(values | producer).flush_interval_s == 1
    assert ConsumerConfig.from_dict(values | consumer).gc_grace_period_s == 1800


def test_the_tables_are_the_ones_that_a_sink_makes(postgres_server):
    def plain(text: str) -> list[str]:
        names = text.replace("IF NOT EXISTS ", "").replace("{state}", "walengine_state")
        return names.replace("{identities}", "walengine_state_identities").split()

    shown = [plain(part) for part in block("sql").split(";") if "CREATE" in part]
    made = (tables.MAKE_STATE, tables.MAKE_IDENTITIES, tables.MAKE_INDEX)
    assert shown == [plain(part) for part in made]
    place = PostgresPlace(postgres_server)
    try:
        role = f"feeder_{place.name}"
        place.execute(f"CREATE ROLE {role}")
        with psycopg.connect(place.conninfo) as connection:
            connection.execute(block("sql").replace("feeder", role))
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
    finally:
        place.drop()


@pytest.mark.parametrize("command", sorted(set(buffer.commands) - {"manifest"}))
def test_every_command_is_on_the_page(command):
    assert f"| `walengine buffer {command}` |" in PAGE


def test_every_argument_of_a_sink_is_on_the_page():
    options = ("dedupe_retention", "stall_timeout", "lock_timeout", "state_table", "name", "queue")
    assert [name for name in options if f"`{name}`" not in PAGE] == []
    assert SqliteSink.__init__.__kwdefaults__.keys() < {*options, "self"}
