"""Paths, what a manifest may point to, and names under which batches are stored."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from walengine.buffer.location import (
    BatchNamer,
    identity_of,
    location_problem,
    normalise_path,
    normalise_prefix,
    parse_batch_name,
)
from walengine.buffer.store.port import check_name

NAME = "01JQ8V3K7M5Z9XW2C4T6R8B1N3"
LOCATION = f"ingest/{NAME}.batch"
TIME_MS = ULID.from_str(NAME).milliseconds

# Everything that object_store, the Rust client, leaves unencoded in a segment.
PLAIN = "".join(
    chr(code) for code in range(0x20, 0x7F) if chr(code) not in '\\{^}%`]">[~<#|*?/'
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("ingest", "ingest"),
        ("/ingest/", "ingest"),
        ("a//b///c", "a/b/c"),
        ("///a/b//", "a/b"),
        ("with space/a.b-c_d=e", "with space/a.b-c_d=e"),
        (PLAIN, PLAIN),
    ],
)
def test_slashes_are_put_right(path, normal):
    assert normalise_path(path) == normal
    assert normalise_prefix(path) == normal


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "must not be empty"),
        ("//", "must not be empty"),
        ("a/../b", "no segment '..'"),
        ("./a", "no segment '.'"),
        ("a%2Fb", "no character '%', as at offset 1"),
        ("a\\b", "no character"),
        ("ingest/ä", "no character 'ä'"),
        ("a\0", "no character"),
        ("a~b", "no character '~'"),
        ("a" * 256, "255 bytes"),
        ("a/" * 600, "1024 bytes"),
        (".walengine", "local store"),
    ],
)
def test_paths_that_cannot_be(path, problem):
    with pytest.raises(ValueError, match=problem):
        normalise_path(path)


def test_a_path_is_text():
    with pytest.raises(TypeError, match="manifest_path must be a str, not bytes"):
        normalise_path(b"ingest", "manifest_path")


def test_a_prefix_leaves_room_for_a_name():
    prefix = "/".join(["a" * 198] * 5)
    assert BatchNamer(normalise_prefix(prefix[:991])).new().location
    assert len(BatchNamer(prefix[:991]).new().location) == 1024
    with pytest.raises(ValueError, match="would not fit"):
        normalise_prefix(prefix[:992])


@given(st.text(alphabet=PLAIN + "/%~ä\0", max_size=40))
def test_what_is_normal_stays_and_is_a_valid_name(path):
    try:
        normal = normalise_path(path)
    except ValueError:
        return
    assert normalise_path(normal) == normal
    assert check_name(normal) == normal
    assert location_problem(f"{normal}/x", [normal]) is None


@pytest.mark.parametrize(
    "location",
    [LOCATION, f"ingest/sub/{NAME}.batch", f"ingest/{NAME}/000000000000000a", "ingest/a"],
)
def test_locations_below_a_prefix_are_fetched(location):
    """The Go client's names too: a run, and a number."""
    assert location_problem(location, ["ingest"]) is None
    assert location_problem(location, ["other", "ingest"]) is None
    assert "outside of other/" in location_problem(location, ["other"])
    assert location_problem("a/b/c", ["a/b"]) is None
    assert "outside of" in location_problem("a/bc", ["a/b"])


# ---- names of batches ----------------------------------------------------------------------------


def test_a_name_is_a_time_and_an_identity():
    assert parse_batch_name(LOCATION) == (LOCATION, TIME_MS, NAME[10:])
    assert parse_batch_name(LOCATION, "ingest") == (LOCATION, TIME_MS, NAME[10:])
    assert identity_of(LOCATION) == NAME[10:] == "5Z9XW2C4T6R8B1N3"


@pytest.mark.parametrize(
    "location",
    [
        f"ingest/{NAME.lower()}.batch",
        f"ingest/{NAME}",
        f"ingest/{NAME}.batch.tmp",
        f"ingest/{NAME}.BATCH",
        f"ingest/{NAME}X.batch",
        f"ingest/8{NAME[1:]}.batch",
        f"ingest/{NAME[:-1]}U.batch",
        f"ingest/{NAME[:-1]}.batch",
        f"ingest/{NAME}.batch\n",
        f"ingest/{NAME}/000000000000000a",
        "ingest/manifest",
        "",
    ],
)
def test_other_names_are_not_ours(location):
    """Nobody's object but ours may be collected, and the identity of others is the whole name."""
    assert parse_batch_name(location) is None
    assert identity_of(location) == location


def test_only_direct_children_of_the_prefix_are_ours():
    assert parse_batch_name(f"ingest/sub/{NAME}.batch", "ingest") is None
    assert parse_batch_name(f"other/{NAME}.batch", "ingest") is None
    assert parse_batch_name(f"{NAME}.batch", "ingest") is None
    assert parse_batch_name(f"ingest/sub/{NAME}.batch").identity == NAME[10:]


def test_a_new_name_has_the_time_it_is_and_random_bits():
    namer = BatchNamer("in/gest", clock_ms=lambda: TIME_MS, random_bytes=lambda n: b"\xff" * n)
    name = namer.new()
    assert name == (f"in/gest/{NAME[:10]}{'Z' * 16}.batch", TIME_MS, "Z" * 16)
    assert parse_batch_name(name.location, "in/gest") == name


def test_identities_differ():
    namer = BatchNamer("ingest")
    assert len({namer.new().identity for _ in range(1000)}) == 1000


def test_a_kept_identity_gets_a_new_time():
    now = [TIME_MS]
    namer = BatchNamer("ingest", clock_ms=lambda: now[0])
    first = namer.new()
    now[0] += 60_000
    again = namer.restamp(first.identity)
    assert (again.identity, again.time_ms) == (first.identity, TIME_MS + 60_000)
    assert identity_of(again.location) == identity_of(first.location)
    assert again.location > first.location


@pytest.mark.parametrize(
    "identity", ["", "5Z9XW2C4T6R8B1N", NAME, "5z9xw2c4t6r8b1n3", "../../../../../.."]
)
def test_what_is_no_identity_is_refused(identity):
    with pytest.raises(ValueError, match="is no identity"):
        BatchNamer("ingest").restamp(identity)


@given(st.lists(st.integers(0, (1 << 47)), min_size=2, max_size=50), st.data())
def test_names_ascend_whatever_the_clock_does(times, data):
    """The clock stands, jumps and steps back; names ascend, as text and in time."""
    ticks = iter(times)
    namer = BatchNamer("ingest", clock_ms=lambda: next(ticks))
    names = []
    for _ in times:
        kept = names and data.draw(st.booleans())
        names.append(namer.restamp(names[0].identity) if kept else namer.new())
    assert all(a.location < b.location for a, b in pairwise(names))
    assert all(a.time_ms < b.time_ms for a, b in pairwise(names))
    assert all(name.time_ms >= time for name, time in zip(names, times, strict=True))
    assert [parse_batch_name(name.location, "ingest") for name in names] == names


def test_threads_share_a_namer():
    namer = BatchNamer("ingest", clock_ms=lambda: TIME_MS)
    names: list[list[str]] = [[] for _ in range(4)]

    def work(mine: list[str]) -> None:
        mine.extend(namer.new().location for _ in range(500))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = {parse_batch_name(name).time_ms for mine in names for name in mine}
    assert times == set(range(TIME_MS, TIME_MS + 2000))
    assert all(mine == sorted(mine) for mine in names)
