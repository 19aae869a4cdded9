"""The manifest codec: entries in, entries out, and the bytes of others left as they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walengine.buffer import FormatError, InvalidInputError
from walengine.buffer.entry import Listing, ManifestEntry, Metadata
from walengine.buffer.location import BatchNamer
from walengine.buffer.manifest import EPOCH_MAX, Manifest

NAME = "ingest/manifest"
U64_MAX = (1 << 64) - 1

# ---- strategies ----------------------------------------------------------------------------------

payloads = st.binary(max_size=30)
times = st.integers(-(1 << 63), (1 << 63) - 1)
names = st.text(alphabet="abcXYZ019-_.+=", min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."} and not name.startswith(".walengine")
)


@st.composite
def metadata(draw):
    starts = [0, *draw(st.lists(st.integers(0, (1 << 32) - 1), max_size=4).map(sorted))]
    items = [Metadata(start, draw(times), draw(payloads)) for start in starts]
    return tuple(items if draw(st.booleans()) else ())


listings = st.builds(
    Listing, location=names.map("ingest/{}".format), metadata=metadata(), extension=payloads
)
listing_lists = st.lists(listings, max_size=6)
first_sequences = st.integers(0, U64_MAX - 100)


def drained(first: int, epoch: int = 1) -> Manifest:
    """A manifest without entries, whose next sequence is first."""
    return Manifest((), [], first, epoch, NAME)


def contents(manifest: Manifest) -> list[Listing]:
    return [Listing(e.location, e.metadata, e.extension) for e in manifest.entries()]


# ---- in and out ----------------------------------------------------------------------------------


@given(listing_lists, first_sequences, st.integers(0, EPOCH_MAX))
def test_what_goes_in_comes_out(batches, first, epoch):
    written = drained(first, epoch).append(batches)
    read = Manifest.parse(written.data, NAME)
    assert contents(read) == contents(written) == batches
    assert [entry.sequence for entry in read.entries()] == list(read.sequences)
    assert read.sequences == written.sequences == range(first, first + len(batches))
    assert (len(read), read.epoch, read.next_sequence) == (
        len(batches),
        epoch,
        first + len(batches),
    )


@given(listing_lists, listing_lists, first_sequences)
def test_appending_equals_decoding_and_encoding_everything(old, new, first):
    before = Manifest.parse(drained(first).append(old).data, NAME)
    after = before.append(new)
    decoded = [Listing(e.location, e.metadata, e.extension) for e in before.entries()]
    assert after.data == drained(first).append([*decoded, *new]).data
    assert after.data[: len(before.data) - 22] == before.data[:-22]


@given(listing_lists, first_sequences, st.data())
def test_one_append_equals_many(batches, first, data):
    at = data.draw(st.integers(0, len(batches)))
    manifest = drained(first).append(batches[:at])
    for listing in batches[at:]:
        manifest = manifest.append([listing])
    assert manifest.data == drained(first).append(batches).data


@given(listing_lists, first_sequences, st.integers(-3, 9))
def test_dequeuing_keeps_the_bytes_of_the_rest(batches, first, through):
    manifest = drained(first, 5).append(batches)
    left = manifest.dequeue(first + through)
    gone = min(max(through + 1, 0), len(batches))
    assert contents(left) == batches[gone:]
    assert manifest.data[:-22].endswith(left.data[:-22])
    assert left.sequences == range(first + gone, first + len(batches))
    assert (left.next_sequence, left.epoch) == (manifest.next_sequence, 5)
    assert Manifest.parse(left.data, NAME).sequences == left.sequences


@given(st.lists(st.one_of(listing_lists, st.integers(-2, 12), st.none()), max_size=12))
def test_any_history_can_be_parsed_again(steps):
    """Lists are appended, numbers dequeued, None raises the epoch; a plain list is the model."""
    manifest, model, first, epoch = Manifest.empty(NAME), [], 0, 0
    for step in steps:
        if step is None:
            manifest, epoch = manifest.raise_epoch(), epoch + 1
        elif isinstance(step, int):
            gone = min(max(step + 1 - first, 0), len(model))
            manifest, model, first = manifest.dequeue(step), model[gone:], first + gone
        else:
            manifest, model = manifest.append(step), model + step
        again = Manifest.parse(manifest.data, NAME)
        assert contents(manifest) == contents(again) == model
        assert manifest.sequences == again.sequences == range(first, first + len(model))
        assert manifest.epoch == again.epoch == epoch


def test_changes_leave_the_old_one_alone():
    old = Manifest.empty(NAME).append([Listing("ingest/a"), Listing("ingest/b")])
    data, sequences = old.data, old.sequences
    old.append([Listing("ingest/c")])
    old.dequeue(0)
    old.raise_epoch()
    assert (old.data, old.sequences, old.epoch) == (data, sequences, 0)


def test_an_entry_is_had_by_its_sequence():
    manifest = drained(10).append([Listing("ingest/a"), Listing("ingest/b")])
    assert manifest.entry(11) == ManifestEntry("ingest/b", (), b"", 11)
    for sequence in (9, 12, -1):
        with pytest.raises(IndexError, match=f"no sequence {sequence}"):
            manifest.entry(sequence)


def test_a_manifest_shows_no_payload():
    manifest = drained(10).append([Listing("ingest/secret", [Metadata(0, 1, b"secret")])])
    assert repr(manifest) == "<Manifest ingest/manifest: 1 batches before sequence 11, epoch 1>"


# ---- what a writer refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listing", "problem"),
    [
        (Listing("ingest//a"), "slash"),
        (Listing("ingest/%41"), "no character '%'"),
        (Listing("ingest/\ud800"), "no character"),
        (Listing("a/" * 600 + "a"), "1024 bytes"),
        (Listing("ingest/a", [Metadata(1, 1, b"")]), "must ascend from 0"),
        (Listing("ingest/a", [Metadata(i, 1, b"") for i in (0, 5, 4)]), "must ascend from 0"),
        (Listing("ingest/a", [Metadata(0, 1, b""), Metadata(1 << 32, 1, b"")]), "metadata: "),
        (Listing("ingest/a", [Metadata(0, 1 << 63, b"")]), "metadata: "),
        (Listing("ingest/a", [Metadata(0, -(1 << 63) - 1, b"")]), "metadata: "),
    ],
)
def test_what_readers_would_refuse_is_not_written(listing, problem):
    with pytest.raises(InvalidInputError, match=problem):
        Manifest.empty(NAME).append([listing])


def test_sequences_and_epochs_come_to_an_end():
    assert drained(U64_MAX - 1).append([Listing("ingest/a")]).next_sequence == U64_MAX
    with pytest.raises(InvalidInputError, match="no sequence is left"):
        drained(U64_MAX - 1).append([Listing("ingest/a"), Listing("ingest/b")])
    assert drained(0, EPOCH_MAX - 1).raise_epoch().epoch == EPOCH_MAX
    for epoch in (EPOCH_MAX, U64_MAX):
        with pytest.raises(FormatError, match=f"epoch {epoch} cannot be raised") as caught:
            drained(0, epoch).raise_epoch()
        assert caught.value.offset == 12


def test_metadata_must_lie_within_the_batch():
    entry = ManifestEntry("ingest/a", (Metadata(0, 1, b""), Metadata(7, 1, b"")), b"", 3)
    entry.check_records(8)
    with pytest.raises(FormatError, match="has 7 entries, and metadata 1 .* begins at 7") as caught:
        entry.check_records(7)
    assert (caught.value.object, caught.value.sequence) == ("ingest/a", 3)


# ---- finding one's own ---------------------------------------------------------------------------


def test_batches_are_found_by_identity():
    """Under whatever time they are listed, and wherever they are."""
    namer = BatchNamer("ingest")
    mine = [namer.new() for _ in range(3)]
    again = namer.restamp(mine[1].identity)
    manifest = drained(40).append(
        [
            Listing(namer.new().location),
            Listing(again.location),
            Listing("ingest/other", [Metadata(0, 1, mine[0].location.encode())]),
            Listing(mine[2].location, [Metadata(0, 1, b"x")]),
        ]
    )
    identities = [name.identity for name in mine]
    assert manifest.find(identities) == {
        mine[1].identity: (41, again.location),
        mine[2].identity: (43, mine[2].location),
    }
    assert Manifest.parse(manifest.data, NAME).find(identities[:1]) == {}
    assert manifest.dequeue(41).find(identities) == {mine[2].identity: (43, mine[2].location)}
    assert Manifest.empty(NAME).find(identities) == {}


def test_of_two_with_one_identity_the_first_is_found():
    namer = BatchNamer("ingest")
    first = namer.new()
    second = namer.restamp(first.identity)
    manifest = drained(0).append([Listing(first.location), Listing(second.location)])
    assert manifest.find({first.identity}) == {first.identity: (0, first.location)}


def test_a_location_that_runs_into_the_next_entry_is_not_found():
    """The bytes of a bad entry must not be taken for a name."""
    name = BatchNamer("x").new()
    manifest = drained(0).append([Listing("x/y"), Listing(name.location)])
    data = bytearray(manifest.data)
    second = manifest.data.index(name.location.encode())
    data[12:14] = (second + len(name.location) - 14).to_bytes(2, "little")
    assert Manifest.parse(bytes(data), NAME).find({name.identity}) == {
        name.identity: (1, name.location)
    }
