"""A segment that somebody removed is damage, whichever it was, and the error names it."""

import pytest

from walengine import PortableWalWriter, WalConfig, WalCorruptionError, recover, replay

SEGMENT_BYTES = 32768


def make_log(path):
    """Write and close a log of several segments, none of them prepared ahead."""
    with PortableWalWriter(path, WalConfig(segment_bytes=SEGMENT_BYTES)) as wal:
        for number in range(60):
            wal.append(b"%04d" % number * 500)
    with_start = [name for name in sorted(path.glob("wal-*.seg")) if has_start(name)]
    assert len(with_start) >= 4
    return with_start


def has_start(segment):
    """Tell whether a segment was ever begun: its first frame's magic stands at 8192."""
    with segment.open("rb") as file:
        file.seek(8192)
        return file.read(4) == b"WFRM"


@pytest.mark.parametrize("which", [0, 1, -2, -1])
def test_a_removed_segment_is_corruption(tmp_path, which):
    """Remove the oldest, a middle one, or the newest of a log that was closed."""
    path = tmp_path / "log"
    removed = make_log(path)[which]
    removed.unlink()
    with pytest.raises(WalCorruptionError, match=removed.name) as caught:
        list(replay(path))
    assert caught.value.report.verdict == "corrupt"
    assert recover(path).verdict == "corrupt"
    with pytest.raises(WalCorruptionError, match=removed.name):
        PortableWalWriter(path, WalConfig(segment_bytes=SEGMENT_BYTES))


def test_a_rotation_that_a_kill_cut_short_is_no_corruption(tmp_path):
    """The old segment names a successor that has no START yet: its file is there, and serves."""
    path = tmp_path / "log"
    newest = make_log(path)[-1]
    with newest.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(newest.stat().st_size - 4096))
    before = recover(path)
    assert before.verdict == "clean"
    with PortableWalWriter(path, WalConfig(segment_bytes=SEGMENT_BYTES)) as wal:
        assert wal.append(b"next") == before.last_lsn + 1
    assert [record.data for record in replay(path)][-1] == b"next"
