"""`walengine buffer produce`, `consume`, `stats`, `gc`, `adopt` as users run them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing

import pytest
import servers
from commands import cli
from postgres_server import fresh_database
from processes import ends

from walengine.buffer import BatchDescriptor, ObjectStoreConfig, ProducerConfig
from walengine.cli import _consuming

LINES = [b"one\n", b"two\n", b"\n", b"f\xc3\xbcnf \r with\x0bcontrols\x00\n", b"last without"]
TEXT = b"".join(LINES)
WAIT_SECONDS_MAX = 60


@pytest.fixture
def url(tmp_path):
    return (tmp_path / "a queue").as_uri()


@pytest.fixture
def note(tmp_path):
    """What a consumer leaves for others to see; there once it has raised the epoch."""
    return tmp_path / "a queue" / "ingest" / "_consumer.json"


def produce(url, *arguments, data=TEXT, **options):
    return cli("buffer", "produce", "--store", url, *arguments, data=data, **options)


def consume(url, *arguments, **options):
    return cli("buffer", "consume", "--store", url, *arguments, **options)


def stats(url, *arguments):
    return json.loads(cli("buffer", "stats", "--store", url, "--json", *arguments).stdout)


def start(*arguments, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "walengine", "buffer", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | env,
    )  # fmt: skip


def wait_for(condition):
    limit = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def query(path, statement):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(statement).fetchall()


# ---- in and out ----------------------------------------------------------------------------------


def test_what_goes_in_comes_out_as_it_was(url):
    assert ends(produce(url), 0, "5 entries read, 5 durable in the queue")
    result = consume(url, "--drain")
    assert ends(result, 0, "batch(es)?, 5 entries consumed")
    assert result.stdout == b"".join(LINES)
    assert consume(url, "--drain").stdout == b""


def test_acks_and_json_tell_how_much_is_durable(url):
    result = produce(url, "--acks")
    assert ends(result, 0)
    assert result.stdout.splitlines()[-1] == b"durable 5"
    facts = json.loads(produce(url, "--json", "--compression", "zstd").stdout)
    assert facts["entries"] == 5
    assert facts["bytes"] == sum(map(len, LINES))
    assert facts["batches"] >= 1
    assert json.loads(produce(url, "--json", data=b"").stdout)["entries"] == 0


def test_formats_show_where_entries_stand(url):
    produce(url, "--metadata", "shelf 3")
    lines = [json.loads(line) for line in consume(url, "--drain", "--format", "jsonl").stdout
             .splitlines()]  # fmt: skip
    assert [line["data"].encode() for line in lines] == LINES
    assert [(line["sequence"], line["index"]) for line in lines] == [(0, i) for i in range(5)]
    assert {line["metadata"] for line in lines} == {"shelf 3"}
    assert all(line["ingestion_time_ms"] > 1_600_000_000_000 for line in lines)


def test_entries_that_are_no_lines_go_length_prefixed(url):
    data = b"".join(struct.pack("<I", len(entry)) + entry for entry in (b"\xff\n\x00", b"", b"x"))
    assert ends(produce(url, "--length-prefixed", data=data), 0, "3 entries read")
    result = consume(url, "--drain", "--format", "length-prefixed")
    assert result.stdout == data
    assert ends(produce(url, "--length-prefixed", data=data[:-1]), 1, "ends in the middle", "2 ent")


def test_json_lines_with_bytes_are_base64(url):
    produce(url, data=b"\xff\xfe\n")
    (line,) = consume(url, "--drain", "--format", "jsonl").stdout.splitlines()
    assert json.loads(line)["data_base64"] == "//4K"


def test_a_queue_may_stand_elsewhere(url):
    where = ("--manifest", "other/manifest", "--prefix", "other/data")
    produce(url, *where)
    assert stats(url)["exists"] is False
    assert stats(url, *where)["queue_length"] == 1
    assert consume(url, *where, "--drain").stdout == b"".join(LINES)


def test_nobody_has_to_read_to_the_end(url):
    """Goal: a pipe that closes early ends it cleanly, and what nobody got stays in the queue."""
    for _ in range(2):
        produce(url, data=b"x" * 100_000 + b"\n")
    process = start("consume", "--store", url)
    process.stdin.close()
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(WAIT_SECONDS_MAX) == 0
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert len(consume(url, "--drain").stdout) >= 100_000


# ---- files, variables ----------------------------------------------------------------------------


def test_one_file_serves_both_sides(url, tmp_path):
    path = tmp_path / "queue.toml"
    path.write_text(
        'manifest_path = "shop/manifest"\ndata_path_prefix = "shop"\n'
        f'[object_store]\ntype = "Local"\npath = "{tmp_path / "place"}"\n'
        '[producer]\nflush_interval = "10ms"\nbatch_compression = "zstd"\n'
        '[consumer]\ngc_interval = "1min"\n'
    )
    assert ends(cli("buffer", "produce", "--config", path, data=b"a\n"), 0)
    assert cli("buffer", "consume", "--config", path, "--drain").stdout == b"a\n"
    assert (tmp_path / "place" / "shop" / "manifest").exists()
    assert ends(cli("buffer", "produce", "--config", path, "--store", url, data=b"b\n"), 0)
    assert stats(url, "--manifest", "shop/manifest", "--prefix", "shop")["queue_length"] == 1


def test_the_environment_serves_too(tmp_path):
    config = ProducerConfig(object_store=ObjectStoreConfig.Local(str(tmp_path / "place")))
    env = config.to_env()
    assert ends(cli("buffer", "produce", data=b"a\n", **env), 0)
    assert cli("buffer", "consume", "--drain", **env).stdout == b"a\n"


def test_a_bucket_with_a_prefix(moto_endpoint):
    """Method: moto for S3, found by the variables of Amazon's own programs."""
    bucket = f"cli-{os.getpid()}"
    servers.make_bucket(moto_endpoint, bucket)
    url = f"s3://{bucket}/a/b"
    env = {
        "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": moto_endpoint, "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hidden",
    }  # fmt: skip
    assert ends(produce(url, **env), 0, "5 durable")
    dump = cli("buffer", "manifest", "dump", "--store", url, **env)
    (entry,) = json.loads(dump.stdout)["entries"]
    assert entry["location"].startswith("a/b/ingest/")
    assert consume(url, "--drain", **env).stdout == b"".join(LINES)
    env["AWS_ALLOW_HTTP"] = ""
    assert ends(produce(url, **env), 2, "is not encrypted")
    env["AWS_REGION"] = ""
    assert ends(produce(url, **env), 2, "set AWS_REGION")


# ---- into databases ------------------------------------------------------------------------------


def test_lines_become_rows_of_sqlite(url, tmp_path):
    path = tmp_path / "lines.db"
    produce(url)
    into = ("--into", path, "--table", "lines", "--columns", "line")
    assert ends(consume(url, *into, "--drain"), 1, "no such database", "--create makes it")
    nowhere = ("--into", tmp_path / "none" / "lines.db", *into[2:])
    assert ends(consume(url, *nowhere, "--create"), 1, "there is no directory .*: make it first")
    facts = json.loads(consume(url, *into, "--create", "--drain", "--json").stdout)
    assert facts == {"batches": 1, "entries": 5, "rows": 5, "duplicates": 0, "skipped": 0}
    wanted = [(line.decode().removesuffix("\n"),) for line in LINES]
    assert query(path, "SELECT line FROM lines ORDER BY rowid") == wanted
    produce(url)
    assert ends(consume(url, *into, "--drain"), 0, "1 batch, 5 entries")
    assert query(path, "SELECT count(*) FROM lines") == [(10,)]


def test_a_sqlite_url_and_bytes(url, tmp_path):
    path = tmp_path / "lines.db"
    produce(url, data=b"\xff\n")
    into = ("--into", path.as_uri().replace("file:", "sqlite:"), "--table", "t", "--columns", "b")
    assert ends(consume(url, *into, "--create", "--drain"), 1, "no UTF-8.*--rows bytes", "entry 0 ")
    assert ends(consume(url, *into, "--drain", "--rows", "bytes"), 0)
    assert query(path, "SELECT b FROM t") == [(b"\xff\n",)]


def test_arguments_need_not_be_text(url, tmp_path):
    """Bytes on a command line may be any: a file's name, or metadata in another encoding."""
    assert produce(url, "--metadata", os.fsdecode(b"\xff\xc3\xbc")).returncode == 0
    path = tmp_path / os.fsdecode(b"rows \xff%.db")
    done = consume(url, "--into", path, "--table", "t", "--columns", "a", "--create", "--drain")
    assert done.returncode == 0, done.stderr
    assert len(query(path, "SELECT a FROM t")) == len(LINES)


def test_json_objects_fill_columns(url, tmp_path):
    path = tmp_path / "orders.db"
    orders = [{"id": 1, "who": "ä", "extra": None}, {"id": 2.5, "tags": ["a", {"b": 1}]}]
    produce(url, data="".join(json.dumps(order) + "\n" for order in orders).encode())
    into = ("--into", path, "--table", "orders", "--columns", "id,who,tags", "--rows", "json")
    assert ends(consume(url, *into, "--create", "--drain"), 0)
    rows = query(path, "SELECT id, who, tags FROM orders ORDER BY id")
    assert rows == [(1, "ä", None), (2.5, None, '["a", {"b": 1}]')]
    produce(url, data=b"[1]\n")
    assert ends(consume(url, *into, "--drain"), 1, "an entry is no JSON object", "--skip 1")
    assert ends(consume(url, *into, "--drain", "--skip", 1), 0)
    assert query(path, "SELECT sequence FROM walengine_state") == [(1,)]


def test_lines_become_rows_of_postgresql(url, postgres_server):
    database = fresh_database(postgres_server)
    host = postgres_server.conninfo(database).split()[0].removeprefix("host=")
    target = f"postgresql:///{database}?host={host}&user=postgres"
    produce(url, data=b"a\nb\tc\\\n")
    into = ("--into", target, "--table", "lines", "--columns", "line")
    assert ends(consume(url, *into, "--drain"), 1, "no table lines", "--create makes it")
    assert ends(consume(url, *into, "--create", "--drain"), 0)
    rows = postgres_server.execute("SELECT line FROM lines", database=database)
    assert rows == [("a",), ("b\tc\\",)]


# ---- the end of a run ----------------------------------------------------------------------------

ENDS = [(signal.SIGINT, 130, b"interrupted"), (signal.SIGTERM, 143, b"terminated")]


@pytest.mark.parametrize(("end", "code", "word"), ENDS)
def test_a_consumer_that_is_interrupted_has_acked_what_it_wrote(url, tmp_path, end, code, word):
    path = tmp_path / "lines.db"
    produce(url)
    process = start(
        "consume", "--store", url, "--into", path, "--table", "t", "--columns", "a", "--create"
    )
    # Not before it is through with the batch: rows can be seen before their writer goes on.
    wait_for(lambda: path.exists() and stats(url)["queue_length"] == 0)
    process.send_signal(end)
    _, error = process.communicate(timeout=WAIT_SECONDS_MAX)
    assert (process.returncode, b"Traceback" in error) == (code, False)
    assert word in error
    assert b"1 batch, 5 entries consumed" in error
    assert query(path, "SELECT count(*) FROM t") == [(5,)]
    assert stats(url)["queue_length"] == 0
    assert ends(consume(url, "--drain"), 0)


@pytest.mark.parametrize(("end", "code", "word"), ENDS)
def test_a_producer_that_is_interrupted_says_what_is_durable(url, end, code, word):
    process = start("produce", "--store", url, "--acks")
    process.stdin.write(b"one\ntwo\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"durable 2\n"
    process.send_signal(end)
    _, error = process.communicate(timeout=WAIT_SECONDS_MAX)
    assert (process.returncode, b"Traceback" in error) == (code, False)
    assert word in error
    assert b"2 entries read, 2 durable" in error
    assert consume(url, "--drain").stdout == b"one\ntwo\n"


def test_a_signal_behind_a_group_of_batches_is_not_lost():
    """Goal: what cancels the wait for the group's last fetches ends the run."""
    reached, seen, go_on = [], asyncio.Event(), asyncio.Event()

    class Slow:
        def fetch_handle(self):
            return self

        async def fetch(self, _):
            try:
                await asyncio.sleep(60)
            finally:
                seen.set()
                await go_on.wait()

    async def group():
        async with _consuming._fetching(Slow(), [BatchDescriptor(0, "ingest/x", ())]):
            await asyncio.sleep(0)
        reached.append("the next group")

    async def body():
        task = asyncio.create_task(group())
        await seen.wait()
        task.cancel()
        go_on.set()
        await asyncio.wait([task])
        assert (task.cancelled(), reached) == (True, [])

    asyncio.run(body())


# ---- who may consume -----------------------------------------------------------------------------


def test_an_active_consumer_is_fenced_only_on_demand(url, note):
    first = start("consume", "--store", url)
    wait_for(note.exists)
    assert ends(
        consume(url, "--drain"), 1, f"consumer is active, process {first.pid} on ", "--take"
    )
    assert stats(url)["epoch"] == 1
    assert ends(consume(url, "--drain", "--take-over"), 0)
    _, error = first.communicate(timeout=WAIT_SECONDS_MAX)
    assert first.returncode == 1
    assert b"epoch" in error
    assert b"Traceback" not in error
    assert ends(consume(url, "--drain"), 0)


def test_a_consumer_that_was_killed_is_known_to_be_gone(url, note):
    process = start("consume", "--store", url)
    wait_for(note.exists)
    process.kill()
    process.communicate()
    assert ends(consume(url, "--drain"), 0)


@pytest.mark.parametrize("number", [10**400, -1, 1 << 64], ids=["huge", "negative", "large"])
def test_a_note_with_odd_numbers_is_none(url, note, number):
    """Whoever may write to the bucket may have written it."""
    assert ends(consume(url, "--drain"), 0)
    note.write_text(json.dumps({"epoch": 1, "renewed_ms": number, "pid": 1}))
    assert ends(consume(url, "--drain"), 1, "it is not known whether", "--take-over")


def test_of_another_programs_consumer_nothing_is_known(url):
    from walengine.buffer import Consumer, ConsumerConfig  # noqa: PLC0415

    path = url.removeprefix("file://").replace("%20", " ")
    with Consumer(ConsumerConfig(object_store=ObjectStoreConfig.Local(path))):
        pass
    assert ends(consume(url, "--drain"), 1, "epoch 1.*not known whether it is still there")
    assert ends(consume(url, "--drain", "--take-over"), 0)
    assert ends(consume(url, "--drain"), 0)


# ---- looking after a queue -----------------------------------------------------------------------


def test_stats_show_the_queue_and_change_nothing(url):
    assert stats(url)["exists"] is False
    produce(url)
    before = stats(url, "--objects")
    assert (before["queue_length"], before["next_sequence"], before["epoch"]) == (1, 1, 0)
    assert (before["batch_objects"], before["unlisted_objects"]) == (1, 0)
    assert before["oldest_age_seconds"] >= 0
    consume(url, "--drain")
    after = stats(url, "--objects")
    assert (after["queue_length"], after["epoch"], after["unlisted_objects"]) == (0, 1, 1)
    assert after["oldest_age_seconds"] is None
    assert b"next sequence" in cli("buffer", "stats", "--store", url).stdout


def test_gc_deletes_what_is_old_and_listed_nowhere(url, tmp_path):
    assert ends(cli("buffer", "gc", "--store", url), 0)
    produce(url)
    orphan = tmp_path / "a queue" / "ingest" / "01H00000000000000000000000.batch"
    orphan.write_bytes(b"x" * 100)
    os.utime(orphan, (1, 1))
    gc = ("buffer", "gc", "--store", url, "--json")
    facts = json.loads(cli(*gc, "--dry-run").stdout)
    assert (facts["would_delete"], facts["bytes"], orphan.exists()) == (1, 100, True)
    facts = json.loads(cli(*gc).stdout)
    assert (facts["deleted"], facts["failed"], facts["refused"]) == (1, 0, None)
    assert not orphan.exists()
    assert stats(url)["epoch"] == 0
    assert consume(url, "--drain").stdout == b"".join(LINES)


def test_a_prefix_changes_hands_only_by_adopt(url):
    produce(url)
    other = ("--manifest", "other/manifest")
    assert ends(produce(url, *other), 1, "belongs to manifest ingest/manifest", "adopt")
    adopt = ("buffer", "adopt", "--store", url, *other)
    assert ends(cli(*adopt), 2, "nobody can be asked here: --yes")
    done = json.loads(cli(*adopt, "--yes", "--json").stdout)
    assert (done["manifest"], done["previous"]) == ("other/manifest", "ingest/manifest")
    assert ends(produce(url, *other), 0)
    assert ends(produce(url), 1, "belongs to manifest other/manifest")


# ---- batches that cannot be had ------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_a_batch_that_cannot_be_had_stops_until_it_is_skipped(url, tmp_path, damage):
    path = tmp_path / "lines.db"
    for line in (b"a\n", b"b\n", b"c\n"):
        produce(url, data=line)
    dump = json.loads(cli("buffer", "manifest", "dump", "--store", url).stdout)
    lost = tmp_path / "a queue" / dump["entries"][1]["location"]
    if damage == "missing":
        lost.unlink()
    else:
        lost.write_bytes(b"no batch at all")
    into = ("--into", path, "--table", "t", "--columns", "a", "--create", "--drain")
    code = 1 if damage == "missing" else 4
    assert ends(consume(url, *into), code, dump["entries"][1]["location"], "--skip 1 leaves it out")
    assert query(path, "SELECT a FROM t") == [("a",)]
    assert ends(consume(url, *into, "--skip", 1), 0)
    assert query(path, "SELECT a FROM t ORDER BY rowid") == [("a",), ("c",)]
    assert stats(url)["queue_length"] == 0


def test_a_database_from_a_backup_finds_the_gap(url, tmp_path):
    """Goal: what was acked since is gone from the queue; nobody goes on without being told."""
    path, copy = tmp_path / "lines.db", tmp_path / "backup.db"
    into = ("--into", path, "--table", "t", "--columns", "a", "--create", "--drain")
    produce(url, data=b"a\n")
    assert ends(consume(url, *into), 0)
    shutil.copy(path, copy)
    produce(url, data=b"b\n")
    assert ends(consume(url, *into), 0)
    shutil.copy(copy, path)
    produce(url, data=b"c\n")
    assert ends(consume(url, *into), 1, "acked sequence is 0", "--allow-gap goes on without")
    assert query(path, "SELECT a FROM t") == [("a",)]
    assert ends(consume(url, *into, "--take-over", "--allow-gap"), 0)
    assert query(path, "SELECT a FROM t ORDER BY rowid") == [("a",), ("c",)]
    assert query(path, "SELECT sequence FROM walengine_state") == [(2,)]


def test_a_table_that_was_fed_by_another_queue_is_refused(url, tmp_path):
    into = ("--into", tmp_path / "x.db", "--table", "t", "--columns", "a", "--create", "--drain")
    produce(url)
    assert ends(consume(url, *into), 0)
    other = (tmp_path / "other").as_uri()
    produce(other)
    assert ends(consume(other, *into), 1, "the state row is that of queue file:.*a%20queue")
    assert ends(consume(other, *into, "--name", "second"), 0)
    assert query(tmp_path / "x.db", "SELECT count(*) FROM t") == [(10,)]
