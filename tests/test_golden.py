"""The golden logs of format 1: read and continued by the engine, and read by a second decoder.

The files were written by golden/make_golden.py, which knows docs/FORMAT.md and nothing of
walengine. expected.json beside each says what a reader must find.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import decoder
import pytest
from support import SMALL, append_after, case_name, private_copy, read_all

import walengine

GOLDEN = Path(__file__).parent / "golden"
LOGS = sorted(path for path in (GOLDEN / "v1").iterdir() if path.is_dir())
EXPECTED = {path.name: json.loads((path / "expected.json").read_text()) for path in LOGS}
SOUND = [path for path in LOGS if EXPECTED[path.name]["replay"] == "ends"]
DAMAGED = [path for path in LOGS if path not in SOUND]
CORRUPT = [path for path in LOGS if EXPECTED[path.name]["verdict"] == "corrupt"]
ENDING = [path for path in LOGS if path not in CORRUPT]

by_name = {"ids": lambda path: path.name}


def records_of(path: Path) -> list[tuple[int, bytes]]:
    return [(int(lsn), data.encode()) for lsn, data in EXPECTED[path.name]["records"].items()]


FUZZ = Path(__file__).parent / "fuzz"
GENERATED = [(GOLDEN / "make_golden.py", GOLDEN / "v1"), (FUZZ / "make_corpus.py", FUZZ / "corpus")]


def files_below(directory: Path) -> dict[Path, bytes]:
    return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("script", "stored"), GENERATED, ids=["golden", "corpus"])
def test_the_scripts_still_write_these_bytes(script, stored, tmp_path):
    """Neither the format nor its description can drift: run the script, compare every file."""
    subprocess.run([sys.executable, script, tmp_path], check=True)
    written, kept = files_below(tmp_path), files_below(stored)
    assert written.keys() == kept.keys()
    assert [name for name in written if written[name] != kept[name]] == []


def test_every_verdict_and_frame_type_is_among_them():
    """The set covers all verdicts; what it holds is named by the issue that asked for it."""
    assert {e["verdict"] for e in EXPECTED.values()} == {
        "new", "clean", "unsealed", "torn", "corrupt",
    }  # fmt: skip
    assert {
        "clean", "torn", "sealed", "two-segments", "recycled", "zero-tail", "garbage-tail",
        "stale-tail", "frame-types", "padded",
    } <= EXPECTED.keys()  # fmt: skip


@pytest.mark.parametrize("path", ENDING, **by_name)
def test_recover_finds_what_was_written(path):
    """Verdict, case and LSNs are those that the script wrote down."""
    expected = EXPECTED[path.name]
    report = walengine.recover(path)
    found = (str(report.verdict), case_name(report.decision), report.first_lsn, report.last_lsn)
    assert found == (
        expected["verdict"], expected["case"], expected["first_lsn"], expected["last_lsn"],
    )  # fmt: skip


@pytest.mark.parametrize("path", LOGS, **by_name)
def test_replay_yields_the_records(path):
    """Every record before damage, byte for byte; an error only where there is damage."""
    records, error = read_all(path)
    assert records == records_of(path)
    if EXPECTED[path.name]["replay"] == "ends":
        assert error is None
    else:
        assert isinstance(error, walengine.WalCorruptionError)


@pytest.mark.parametrize("path", SOUND, **by_name)
def test_verify_accepts_sound_logs(path):
    """Every frame is whole and counted."""
    report = walengine.verify(path)
    assert report.ok
    assert report.records >= len(records_of(path))


@pytest.mark.parametrize("path", SOUND, **by_name)
def test_the_writer_goes_on(path, tmp_path):
    """Open a copy, append, close, open again: nothing lost, nothing extra, decoder agrees."""
    log = private_copy(path, tmp_path / "log")
    lsn = append_after(log, b"after")
    assert lsn == EXPECTED[path.name]["last_lsn"] + 1
    assert append_after(log, b"and again") == lsn + 1
    wanted = [*records_of(path), (lsn, b"after"), (lsn + 1, b"and again")]
    assert read_all(log) == (wanted, None)
    assert decoder.decode(log) == (wanted, "clean")
    assert walengine.verify(log).ok


@pytest.mark.parametrize("path", SOUND, **by_name)
def test_opening_without_appending_changes_nothing_readable(path, tmp_path):
    """A writer that only opens and closes leaves the same records behind."""
    log = private_copy(path, tmp_path / "log")
    walengine.PortableWalWriter(log, SMALL).close()
    assert read_all(log) == (records_of(path), None)
    assert decoder.decode(log)[0] == records_of(path)


@pytest.mark.parametrize("path", CORRUPT, **by_name)
def test_the_writer_refuses_corruption(path, tmp_path):
    """WalCorruptionError with the report, and not one byte changed."""
    log = private_copy(path, tmp_path / "log")
    before = {p.name: p.read_bytes() for p in log.iterdir() if p.name != "LOCK"}
    with pytest.raises(walengine.WalCorruptionError) as caught:
        walengine.PortableWalWriter(log, SMALL)
    assert {p.name: p.read_bytes() for p in log.iterdir() if p.name != "LOCK"} == before
    report = caught.value.report
    assert report is not None
    assert (str(report.verdict), case_name(report.decision)) == (
        "corrupt", EXPECTED[path.name]["case"],
    )  # fmt: skip
    assert str(log) in str(caught.value)


@pytest.mark.parametrize("path", SOUND, **by_name)
def test_second_decoder_reads_the_golden_logs(path):
    """The decoder of tests/decoder.py finds the same records and the same verdict."""
    expected = EXPECTED[path.name]
    assert decoder.decode(path) == (records_of(path), expected["verdict"])


@pytest.mark.parametrize("path", DAMAGED, **by_name)
def test_second_decoder_refuses_damage(path):
    """What the engine calls corrupt, the second decoder does too."""
    with pytest.raises(decoder.DamageError):
        decoder.decode(path)


# ---- the other direction: the engine writes, the second decoder reads ----------------------------


def write_all_forms(wal: walengine.PortableWalWriter) -> None:
    wal.append(b"one")
    wal.append_with_checksum(b"two")
    for i in range(20):
        wal.append_batched(b"staged %d " % i * i)
    wal.flush_batch()
    wal.append_with_checksum_batched(b"")
    for data in (b"a", b"bb", b"ccc"):
        wal.append(data)
        wal.sync()
    wal.append(b"x" * 20000)


@pytest.mark.parametrize("strict_sectors", [False, True])
def test_second_decoder_reads_what_the_engine_writes(tmp_path, strict_sectors):
    """All forms of append over several segments, closed, continued, closed."""
    config = walengine.WalConfig(segment_bytes=32768, strict_sectors=strict_sectors)
    for _ in range(3):
        with walengine.PortableWalWriter(tmp_path / "log", config) as wal:
            write_all_forms(wal)
    records, error = read_all(tmp_path / "log")
    assert error is None
    assert len(records) == 3 * 27
    assert decoder.decode(tmp_path / "log") == (records, "clean")


def test_second_decoder_reads_a_trimmed_log(tmp_path):
    """Segments below the trim are recycled; what is left is what both readers find."""
    with walengine.PortableWalWriter(tmp_path / "log", SMALL) as wal:
        for _ in range(4):
            write_all_forms(wal)
        wal.truncate_before(60)
        write_all_forms(wal)
    records, error = read_all(tmp_path / "log")
    assert error is None
    assert (records[0][0], records[-1][0]) == (60, 5 * 27)
    assert decoder.decode(tmp_path / "log") == (records, "clean")
