"""The core's CRC32C against the crc32c package, an implementation that shares nothing with it."""

import random

import crc32c
from hypothesis import given
from hypothesis import strategies as st

from walengine._core import ffi, lib


def core_crc32c(data: bytes, begin: int = 0) -> int:
    return lib.wal_crc32c(begin, ffi.from_buffer(data), len(data))


def test_the_check_value_of_the_catalogue():
    assert core_crc32c(b"123456789") == 0xE3069283


def test_an_implementation_was_chosen():
    assert ffi.string(lib.wal_crc32c_name()) in {b"sse4.2+pclmul", b"armv8", b"slicing-by-8"}


@given(st.binary(max_size=4096))
def test_agrees_with_the_package(data):
    assert core_crc32c(data) == crc32c.crc32c(data)


@given(st.binary(max_size=2048), st.binary(max_size=2048))
def test_continues_where_the_package_stopped(first, second):
    assert core_crc32c(second, crc32c.crc32c(first)) == crc32c.crc32c(first + second)
    assert crc32c.crc32c(second, core_crc32c(first)) == crc32c.crc32c(first + second)


def test_agrees_on_long_buffers(seed, scaled, count):
    chance = random.Random(seed)
    buffers = scaled(200)
    for _ in range(buffers):
        data = chance.randbytes(chance.randrange(4096, 200_000))
        assert core_crc32c(data) == crc32c.crc32c(data)
    count("buffers_against_the_package", buffers)
