"""The buffer's configurations: defaults, the four forms, what they refuse, their secrets."""

import json
import pickle
import traceback
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walengine.buffer import (
    CompressionType,
    ConsumerConfig,
    ObjectStoreConfig,
    ProducerConfig,
)

MEMORY = ObjectStoreConfig.InMemory()
SECRETS = ("AKIA-the-id", "the/secret+key", "the session token")

texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)
buckets = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True)
paths = st.lists(st.from_regex(r"[A-Za-z0-9_()=-]{1,20}", fullmatch=True), min_size=1, max_size=3)
names = paths.map("/".join)
ports = st.integers(1, 65535)
endpoints = st.none() | ports.map(lambda port: f"https://store.example:{port}")


def durations(low_us: int, high_us: int):
    return st.integers(low_us, high_us).map(lambda us: timedelta(microseconds=us))


stores = st.one_of(
    st.builds(ObjectStoreConfig.Local, texts, allow_shared_dir=st.booleans()),
    st.builds(ObjectStoreConfig.InMemory, texts),
    st.builds(
        ObjectStoreConfig.Aws, buckets, buckets, endpoint=endpoints,
        allow_http=st.booleans(), virtual_hosted_style=st.none() | st.booleans(),
    ),
    st.builds(ObjectStoreConfig.Gcp, buckets, service_account_path=st.none() | texts),
    st.builds(ObjectStoreConfig.Azure, buckets, buckets, endpoint=endpoints),
)  # fmt: skip
producers = st.builds(
    ProducerConfig,
    object_store=stores,
    data_path_prefix=names.map("d/".__add__),
    manifest_path=names.map("m/".__add__),
    flush_interval=durations(1000, 10**9),
    flush_size_bytes=st.integers(1, 2**40),
    max_buffered_inputs=st.integers(1, 2**31),
    batch_compression=st.sampled_from(CompressionType),
    max_inflight_batches=st.integers(1, 1024),
    delivery_timeout=durations(1000, 10**12),
)
consumers = st.builds(
    ConsumerConfig,
    object_store=stores,
    data_path_prefix=names.map("d/".__add__),
    manifest_path=names.map("m/".__add__),
    gc_interval=durations(1000, 10**12),
    gc_grace_period=durations(240_000_000, 10**13),
    extra_data_prefixes=st.lists(names, max_size=3),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(producers | consumers)
def test_every_form_reads_back_as_the_same(config):
    kind = type(config)
    assert kind.from_dict(config.to_dict()) == config
    assert kind.from_json(config.to_json()) == config
    assert kind.from_toml(config.to_toml()) == config
    assert kind.from_env(environ=config.to_env()) == config
    assert kind.from_env("X_", config.to_env("X_")) == config
    assert pickle.loads(pickle.dumps(config)) == config
    store = config.object_store
    assert ObjectStoreConfig.from_toml(store.to_toml()) == store


@given(st.dictionaries(st.sampled_from([*ProducerConfig.__slots__, "odd"]), json_values))
def test_hostile_tables_are_refused_or_right(values):
    """Goal: no error but TypeError and ValueError, whatever a file holds."""
    try:
        config = ProducerConfig.from_dict(values)
    except (TypeError, ValueError):
        return
    assert ProducerConfig.from_dict(config.to_dict()) == config


@given(st.text())
def test_hostile_texts_are_refused(text):
    for read in (ProducerConfig.from_json, ConsumerConfig.from_toml):
        with pytest.raises((TypeError, ValueError)):
            read(text)


def test_deep_nesting_is_an_error_of_the_value():
    with pytest.raises(ValueError, match="nested too deeply"):
        ProducerConfig.from_json("[" * 100_000)


def test_the_defaults_are_opendatas():
    producer = ProducerConfig(object_store=MEMORY)
    assert producer.to_dict() == {
        "object_store": {"type": "InMemory", "name": "default"},
        "data_path_prefix": "ingest",
        "manifest_path": "ingest/manifest",
        "flush_interval": 100,
        "flush_size_bytes": 67_108_864,
        "max_buffered_inputs": 1000,
        "batch_compression": "none",
        "max_inflight_batches": 16,
        "max_buffered_bytes": 268_435_456,
        "delivery_timeout": 120_000,
        "max_manifest_bytes": 16_777_216,
        "max_batch_bytes": 1_073_741_824,
    }
    consumer = ConsumerConfig(object_store=MEMORY)
    assert (consumer.gc_interval_s, consumer.gc_grace_period_s) == (300, 600)


def test_opendatas_file_is_read_as_it_is():
    """Method: every field that OpenData's structs have, as serde writes them."""
    config = ProducerConfig.from_json(
        '{"object_store": {"type": "Aws", "region": "us-west-2", "bucket": "b"},'
        ' "data_path_prefix": "ingest", "manifest_path": "ingest/manifest",'
        ' "flush_interval": 250, "flush_size_bytes": 1, "max_buffered_inputs": 10,'
        ' "batch_compression": "Zstd"}'
    )
    assert config.object_store == ObjectStoreConfig.Aws("us-west-2", "b")
    assert config.flush_interval == timedelta(milliseconds=250)
    assert config.batch_compression is CompressionType.ZSTD


@pytest.mark.parametrize(
    ("given_", "seconds"),
    [("100ms", 0.1), ("5min", 300), ("1.5s", 1.5), ("1500us", 0.0015), ("2h", 7200), (100, 0.1)],
)
def test_durations_in_files(given_, seconds):
    config = ProducerConfig.from_dict({"object_store": {"type": "InMemory"},
                                       "flush_interval": given_})  # fmt: skip
    assert config.flush_interval_s == seconds


def test_durations_in_code():
    for value in (0.1, timedelta(milliseconds=100)):
        config = ProducerConfig(object_store=MEMORY, flush_interval=value)
        assert config.flush_interval == timedelta(milliseconds=100)


@pytest.mark.parametrize(
    "value", ["", "5", "5 minutes", "-1s", "1e3ms", "\u0665ms", "0.1us", "9" * 15 + "d"]
)
def test_what_is_no_duration_in_a_file(value):
    with pytest.raises(ValueError):
        ProducerConfig.from_dict({"object_store": {"type": "InMemory"}, "flush_interval": value})


def test_the_stores_base_is_no_store():
    with pytest.raises(TypeError, match="abstract"):
        ObjectStoreConfig()


@pytest.mark.parametrize(
    "change",
    [
        {"object_store": "Local"},
        {"data_path_prefix": "../up"},
        {"data_path_prefix": "a%2e"},
        {"manifest_path": ""},
        {"manifest_path": "ingest"},
        {"manifest_path": "ingest/_queue.json"},
        {"manifest_path": "ingest/_consumer.json"},
        {"manifest_path": "ingest/01JQ8V3K7M5Z9XW2C4T6R8B1N3.batch"},
        {"manifest_path": b"ingest/manifest"},
        {"flush_interval": "100ms"},
        {"flush_interval": True},
        {"flush_interval": 0},
        {"flush_interval": float("nan")},
        {"flush_interval": float("inf")},
        {"flush_interval": 1e300},
        {"flush_size_bytes": 0},
        {"flush_size_bytes": 1.0},
        {"max_buffered_inputs": True},
        {"batch_compression": "zstd"},
        {"max_inflight_batches": 0},
    ],
)
def test_what_a_producer_refuses(change):
    with pytest.raises((TypeError, ValueError)):
        ProducerConfig(**({"object_store": MEMORY} | change))


def test_configurations_are_frozen_and_keyword_only():
    with pytest.raises(TypeError):
        ProducerConfig(MEMORY)
    with pytest.raises(AttributeError):
        ProducerConfig(object_store=MEMORY).manifest_path = "x"


def test_a_grace_period_below_the_age_of_names_is_refused():
    """A collector must never take an object whose name a producer may still list."""
    with pytest.raises(ValueError, match="gc_grace_period must be from 240000"):
        ConsumerConfig(object_store=MEMORY, gc_grace_period=60)


def test_unknown_and_missing_keys_are_named():
    with pytest.raises(ValueError, match=r"no 'flush_intervall'; there is .*flush_interval"):
        ProducerConfig.from_dict({"object_store": {"type": "InMemory"}, "flush_intervall": 1})
    with pytest.raises(ValueError, match="object_store must be given"):
        ProducerConfig.from_env(environ={})
    with pytest.raises(ValueError, match="type must be one of Local, InMemory"):
        ProducerConfig.from_dict({"object_store": {"type": "local"}})
    with pytest.raises(ValueError, match="bucket must be given"):
        ObjectStoreConfig.from_dict({"type": "Aws", "region": "x"})


@pytest.mark.parametrize(
    "endpoint",
    ["http://h", "ftp://h", "https://", "https://user:hunter2@h", "https://h/?sig=hunter2", "h:80",
     "https://[hunter2", "https://h:99999", "https://h#hunter2"],
)  # fmt: skip
def test_endpoints_that_are_refused_show_no_secret(endpoint):
    with pytest.raises(ValueError) as caught:
        ObjectStoreConfig.Aws("r", "b", endpoint=endpoint)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_secrets_show_nowhere():
    store = ObjectStoreConfig.Aws(
        "r", "b", access_key_id=SECRETS[0], secret_access_key=SECRETS[1], session_token=SECRETS[2]
    )
    config = ProducerConfig(object_store=store)
    shown = [repr(config), str(store), config.to_json(), config.to_toml(), store.url,
             json.dumps(config.to_env()), repr(config.to_dict())]  # fmt: skip
    assert [secret for secret in SECRETS for text in shown if secret in text] == []
    revealed = config.to_dict(reveal_secrets=True)
    assert revealed["object_store"]["secret_access_key"] == SECRETS[1]
    assert ProducerConfig.from_dict(revealed) == config


def test_a_secret_that_is_refused_shows_nowhere():
    with pytest.raises(ValueError) as caught:
        ObjectStoreConfig.Azure("a", "c", account_key=SECRETS[1] + "\x00")
    assert SECRETS[1] not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ValueError, match="go together"):
        ObjectStoreConfig.Aws("r", "b", access_key_id=SECRETS[0])
