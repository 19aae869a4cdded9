"""The batch codec: what goes in comes out, and what cannot go in is refused."""

from __future__ import annotations

import array
import os
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from walengine.buffer import FormatError, InvalidInputError
from walengine.buffer import batch as codec
from walengine.buffer.batch import decode_batch, encode_batch, object_bytes_max
from walengine.buffer.compression import CompressionType

ENTRIES = [b"one", b"", b"three" * 100]

entry_lists = st.lists(st.binary(max_size=200), max_size=60)
compressions = st.sampled_from(CompressionType)


@given(entry_lists, compressions)
def test_what_goes_in_comes_out(entries, compression):
    assert decode_batch(encode_batch(entries, compression), "b") == entries


@pytest.mark.parametrize("compression", CompressionType)
def test_large_and_many_entries(compression):
    """Goal: several of zstd's blocks, several steps of the decoder, every size of length."""
    entries = [
        os.urandom(300_000),
        bytes(3_000_000),
        *[b"%d" % i for i in range(70_000)],
        b"\0" * 65_536,
    ]
    assert decode_batch(encode_batch(entries, compression), "b") == entries


@given(entry_lists)
def test_an_uncompressed_batch_is_the_table_of_the_format(entries):
    block = b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)
    assert encode_batch(entries) == block + struct.pack("<BIH", 0, len(entries), 1)


def test_a_compressed_batch_is_one_frame_that_states_its_size():
    """Others decode it in one go: OpenData's reader, and whatever takes a frame by its size."""
    data = encode_batch(ENTRIES, CompressionType.ZSTD)
    block = encode_batch(ENTRIES)[:-7]
    assert data[-7:] == struct.pack("<BIH", 1, 3, 1)
    assert zstandard.frame_content_size(data) == len(block)
    assert zstandard.ZstdDecompressor().decompress(data[:-7]) == block
    assert len(encode_batch([bytes(1000)] * 1000, CompressionType.ZSTD)) < 1000


@pytest.mark.parametrize("compression", CompressionType)
def test_entries_may_be_views(compression):
    views = [bytearray(b"one"), memoryview(b"__two__")[2:5], b"", memoryview(bytearray(b"four"))]
    wanted = [b"one", b"two", b"", b"four"]
    decoded = decode_batch(encode_batch(views, compression), "b")
    assert decoded == wanted
    assert {type(entry) for entry in decoded} == {bytes}
    assert encode_batch(tuple(views)) == encode_batch(wanted)


@pytest.mark.parametrize("compression", CompressionType)
def test_views_of_wider_items_are_refused(compression):
    """len() of such a view counts items: the batch would be framed wrongly."""
    with pytest.raises(TypeError, match="items of one byte"):
        encode_batch([b"good", memoryview(array.array("I", [1, 2]))], compression)


@pytest.mark.parametrize("entry", ["text", 7, None])
def test_what_is_no_bytes_is_refused(entry):
    with pytest.raises(TypeError):
        encode_batch([b"good", entry])


class Long(bytes):
    """Says that it is longer than an entry can be; nobody has the memory to test a real one."""

    __slots__ = ()

    def __len__(self):
        return 1 << 32


class Many(list):
    def __len__(self):
        return 1 << 32


def test_what_does_not_fit_into_a_length_is_refused():
    with pytest.raises(InvalidInputError, match="an entry of 4294967296 bytes"):
        encode_batch([Long()])
    with pytest.raises(InvalidInputError, match="4294967296 entries"):
        encode_batch(Many())


# ---- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", CompressionType)
@pytest.mark.parametrize("size", [0, 1, 100, 5000, 1 << 17, 1 << 20])
def test_an_object_is_not_much_larger_than_its_block(compression, size):
    """What is random cannot be compressed; a reader's limit has to let it through."""
    data = encode_batch([os.urandom(size)], compression)
    assert len(data) <= object_bytes_max(size + 4)


@pytest.mark.parametrize("compression", CompressionType)
def test_the_limit_is_of_the_block_decompressed(compression):
    data = encode_batch(ENTRIES, compression)
    block_bytes = len(encode_batch(ENTRIES)) - 7
    assert decode_batch(data, "b", max_batch_bytes=block_bytes) == ENTRIES
    with pytest.raises(
        FormatError, match=f"more than max_batch_bytes, {block_bytes - 1}"
    ) as caught:
        decode_batch(data, "the/batch", max_batch_bytes=block_bytes - 1)
    assert caught.value.object == "the/batch"


def test_a_small_limit_takes_small_steps(monkeypatch):
    """Goal: no single step of the decoder may yield much more than the limit leaves."""
    largest = 0

    class Frame:
        def __init__(self, real):
            self.real = real

        def decompress(self, chunk):
            nonlocal largest
            part = self.real.decompress(chunk)
            largest = max(largest, len(part))
            return part

        def __getattr__(self, name):
            return getattr(self.real, name)

    class Decompressor:
        def __init__(self, **options):
            self.real = ZstdDecompressor(**options)

        def decompressobj(self):
            return Frame(self.real.decompressobj())

    ZstdDecompressor = zstandard.ZstdDecompressor  # noqa: N806 (a class)
    monkeypatch.setattr(codec.zstandard, "ZstdDecompressor", Decompressor)
    bomb = encode_batch([bytes(1 << 28)], CompressionType.ZSTD)
    for limit_bytes in (1 << 16, 1 << 20, 1 << 24):
        with pytest.raises(FormatError, match="max_batch_bytes"):
            decode_batch(bomb, "b", max_batch_bytes=limit_bytes)
        assert largest <= limit_bytes + (512 << 15) + (128 << 10)


@pytest.mark.parametrize(("window_log", "good"), [(23, True), (27, True), (28, False)])
def test_windows_up_to_128_mib(window_log, good):
    """A window is what the decoder has to keep; larger ones need a writer who asked for it."""
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = (
        stream.compress(encode_batch(ENTRIES)[:-7]) + stream.flush() + struct.pack("<BIH", 1, 3, 1)
    )
    if good:
        assert decode_batch(data, "b") == ENTRIES
    else:
        with pytest.raises(FormatError, match="too much memory"):
            decode_batch(data, "b")


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [ENTRIES, [b"x" * 10] * 50])
def test_every_cut_is_found(entries):
    """Cut the block anywhere, with a footer that is whole: the error names the entry."""
    data = encode_batch(entries)
    block, footer = data[:-7], data[-7:]
    begins = [0]
    for entry in entries:
        begins.append(begins[-1] + 4 + len(entry))
    for cut in range(len(block)):
        with pytest.raises(FormatError) as caught:
            decode_batch(block[:cut] + footer, "the/batch")
        whole = max(index for index, begin in enumerate(begins) if begin <= cut)
        if begins[whole] != cut and "do not fit" not in str(caught.value):
            assert f"entry {whole} has" in str(caught.value)
            assert caught.value.offset == begins[whole]


@pytest.mark.parametrize("compression", CompressionType)
@given(entries=st.lists(st.binary(max_size=50), min_size=1, max_size=10), data=st.data())
def test_errors_say_where_and_nothing_of_the_payload(compression, entries, data):
    raw = bytearray(encode_batch(entries, compression))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        decode_batch(bytes(raw), "the/batch", max_batch_bytes=1 << 20)
    except FormatError as caught:
        error = caught
    else:
        return
    assert str(error).startswith("batch the/batch: ")
    assert f"(at offset {error.offset}" in str(error)
    assert len(str(error)) < 200
