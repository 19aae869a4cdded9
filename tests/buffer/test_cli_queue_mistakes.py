"""What the queue's commands say to mistakes: a sentence and exit code 2, and nothing is done."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from walengine.cli import cli as commands


@pytest.fixture
def mistake(tmp_path, monkeypatch):
    """mistake(command line, text) is a wrong usage, and leaves nothing behind."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def mistake(line, text):
        result = CliRunner().invoke(commands, ["buffer", *line.split(" ")])
        assert result.exit_code == 2, result.output
        assert text in result.output
        assert sorted(tmp_path.rglob("*")) == before
        return result.output

    return mistake


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("memory://x", "memory is one process's own"),
        ("http://host/x", "is what it takes"),
        ("queue", "is what it takes"),
        ("file:/queue", "three slashes"),
        ("file://host/queue", "three slashes"),
        ("file:///queue?x=1", "write ? as %3F"),
        ("file:///queue#x", "# as %23"),
        ("s3:///prefix", "set AWS_REGION"),
        ("s3://id:secret@bucket/x", "no user and no password"),
        ("gs://", "the bucket's name is missing"),
        ("gs://-bucket", "bucket must be letters"),
        ("az://account", "az://ACCOUNT/CONTAINER"),
        ("s3://[bucket", "is no URL"),
    ],
)
@pytest.mark.parametrize("command", ["produce", "consume", "stats", "gc", "adopt", "manifest dump"])
def test_a_url_that_is_no_stores(mistake, command, url, text):
    output = mistake(f"{command} --store {url}", text)
    assert "secret" not in output


def test_a_region_and_an_encrypted_endpoint_are_needed(mistake, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    mistake("stats --store s3://", "the bucket's name is missing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    mistake("stats --store s3://bucket", "AWS_ALLOW_HTTP=true")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("consume", "name the store"),
        ("consume --store file:///q --manifest a/../b", "no segment '..'"),
        ("consume --store file:///q --manifest ", "--manifest: the name is empty"),
        ("produce --store file:///q --prefix ", "--prefix: the name is empty"),
        ("consume --store file:///q --prefix a#b", "some clients encode it"),
        ("consume --store file:///q --into x.db", "--into needs --table"),
        ("consume --store file:///q --into x.db --table t", "--into needs --columns"),
        ("consume --store file:///q --into x.db --table t --columns a,b", "--rows json"),
        ("consume --store file:///q --into mysql://h/d --table t --columns a", "mysql://…"),
        ("consume --store file:///q --into postgresql://[h/d --table t --columns a", "is no URL"),
        ("consume --store file:///q --into x.db --table \udcff --columns a", "no text"),
        ("consume --store file:///q --table t", "go with --into"),
        ("consume --store file:///q --into x.db --format raw", "--format is for"),
        ("consume --store file:///q --json", "cannot both have standard output"),
        ("consume --store file:///q --skip -1", "-1 is not in the range"),
        ("produce --store file:///q --acks --json", "cannot both have standard output"),
        ("produce --store file:///q --flush-interval 0ms", "flush_interval must be from 1"),
        ("produce --store file:///q --flush-interval soon", 'like "100ms"'),
        ("produce --store file:///q --compression gzip", "'none', 'zstd'"),
        ("gc --store file:///q --grace-period 1min", "gc_grace_period must be from 240000"),
        ("adopt --store file:///q", "--yes"),
    ],
)
def test_options_that_do_not_fit(mistake, line, text):
    mistake(line, text)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"secret = [", "it is no TOML"),
        (b"\xff", "it is no TOML"),
        (b"flush_intervall = 1\n", "has no 'flush_intervall'"),
        (b"gc_interval = 1000\n", "a field of the consumer goes under [consumer]"),
        (b"producer = 1\n", "producer must be a table"),
        (b"object_store = 'file:///q'\n", "object_store must be a table"),
        (b"[producer]\nobject_store = 'file:///q'\n", "object_store must be a table"),
        (b"[[producer]]\nflush_interval = 1\n", "producer must be a table"),
        (b"[object_store]\ntype = 'InMemory'\n", "the store is InMemory"),
        (b"[object_store]\ntype = 'Floppy'\n", "must be one of Local"),
        (b"manifest_path = ''\n", "must not be empty"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, data, text):
    path = tmp_path / "queue.toml"
    path.write_bytes(data)
    store = [] if b"object_store" in data else ["--store", "file:///q"]
    line = ["buffer", "produce", "--config", str(path), *store]
    result = CliRunner().invoke(commands, line, input=b"")
    assert (result.exit_code, text in result.output) == (2, True), result.output
    assert "secret" not in result.output


def test_a_file_that_is_not_there(mistake, tmp_path):
    mistake("consume --config none.toml", "No such file")
    mistake(f"consume --config {tmp_path}", "Is a directory")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("FLUSH_SIZE_BYTES", "many", "WALENGINE_BUFFER_FLUSH_SIZE_BYTES must be a whole number"),
        ("FLUSH_INTERVAL", "soon", 'like "100ms"'),
        ("OBJECT_STORE_TYPE", "Floppy", "type must be one of Local"),
        ("OBJECT_STORE_ALLOW_SHARED_DIR", "yes", "must be true or false"),
    ],
)
def test_variables_that_are_no_configuration(mistake, monkeypatch, name, value, text):
    monkeypatch.setenv("WALENGINE_BUFFER_OBJECT_STORE_TYPE", "Local")
    monkeypatch.setenv("WALENGINE_BUFFER_OBJECT_STORE_PATH", "q")
    monkeypatch.setenv(f"WALENGINE_BUFFER_{name}", value)
    mistake("produce", text)
