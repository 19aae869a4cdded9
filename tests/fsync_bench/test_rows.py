"""The table of what is measured: it means something, fits its time, and stands in the guide."""

import re
from pathlib import Path

from walengine.fsync_bench.results import PERCENTILES, SAMPLES_MIN
from walengine.fsync_bench.rows import ROWS, SECTIONS, TABLE, rows_of, size_text
from walengine.fsync_bench.run import FULL_SECONDS, PREPARING_SHARE, QUICK_SECONDS

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "GUIDE.md"
DIRECT = {"O_DIRECT+O_DSYNC", "io_uring direct"}


def test_no_row_is_measured_twice():
    keys = [row.key for row in ROWS]
    assert len(keys) == len(set(keys))


def test_every_row_can_be_done():
    for row in ROWS:
        assert row.section in SECTIONS
        assert 1 <= row.concurrency <= 64
        if row.method in DIRECT:
            assert row.write_bytes % 4096 == 0
        if row.group:
            assert row.method == "fdatasync"
            assert row.concurrency > 1


def test_every_method_state_and_number_at_once_is_measured():
    assert {row.state for row in ROWS} == {"growing", "fallocated", "zero-filled", "recycled"}
    assert {row.concurrency for row in ROWS} == {1, 4, 16, 64}
    assert len({row.method for row in ROWS}) == 8


def test_the_quick_run_is_a_part_of_the_full_one_and_both_keep_their_time():
    quick, full = rows_of(quick=True), rows_of(quick=False)
    assert set(quick) < set(full)
    assert full == ROWS
    assert 13 <= len(quick) * QUICK_SECONDS * (1 + PREPARING_SHARE) <= 18
    assert 150 <= len(full) * FULL_SECONDS * (1 + PREPARING_SHARE) <= 200


def test_the_words_find_their_rows_in_the_quick_run():
    """What verdict.py and advice.py look for has to be measured by --quick too."""
    keys = {row.key for row in rows_of(quick=True)}
    assert {
        "no sync/zero-filled/4096/1",
        "fdatasync/growing/4096/1",
        "fdatasync/zero-filled/4096/1",
        "io_uring linked/zero-filled/4096/1",
        "io_uring direct/zero-filled/4096/1",
        "fdatasync/zero-filled/4096/16-group",
        "io_uring direct/zero-filled/4096/16",
        "fdatasync/fallocated/2300/1",
        "fdatasync/recycled/8192/1",
        "fdatasync/recycled/8192/16-group",
        "fdatasync/zero-filled/1048576/1",
    } <= keys


def guide_line(pairs):
    """A line of the table as the guide has it."""
    method = f"{pairs.method}, group commit" if pairs.group else pairs.method
    quick = ", ".join(f"{state} at {count}" for state, count in pairs.quick) or "no"
    cells = (
        pairs.section,
        method,
        ", ".join(pairs.states),
        ", ".join(map(size_text, pairs.sizes)),
        ", ".join(map(str, pairs.at_once)),
        quick,
        pairs.why,
    )
    return f"| {' | '.join(cells)} |"


def test_the_guide_has_the_same_table():
    text = GUIDE.read_text(encoding="utf-8")
    sections = "|".join(SECTIONS)
    found = re.findall(rf"^\| (?:{sections}) \|.*\|$", text, re.MULTILINE)
    assert found == [guide_line(pairs) for pairs in TABLE]


def test_a_percentile_wants_samples():
    assert {name: SAMPLES_MIN[name] for name in PERCENTILES} == {
        "p50_us": 2,
        "p90_us": 10,
        "p99_us": 100,
        "p999_us": 1000,
    }
