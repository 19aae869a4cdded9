"""The comparison bench: what it makes of samples, of traces and of stored ratios."""

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.append(str(BENCH))

import players  # noqa: E402
import proof  # noqa: E402
import readme  # noqa: E402
from contenders import CONTENDERS  # noqa: E402
from groups import TINY, Bench  # noqa: E402
from loops import CannotRunError  # noqa: E402
from percentiles import cdf_us, latencies_us  # noqa: E402
from targets import ratios, regressions  # noqa: E402

PLAIN = "os.write + fdatasync"


@pytest.mark.parametrize(
    ("samples", "shown"),
    [
        (9, ["p50", "max"]),
        (10, ["p50", "p90", "max"]),
        (99, ["p50", "p90", "max"]),
        (100, ["p50", "p90", "p99", "max"]),
        (999, ["p50", "p90", "p99", "max"]),
        (1000, ["p50", "p90", "p99", "p99.9", "max"]),
    ],
)
def test_no_percentile_is_shown_that_the_samples_do_not_bear(samples, shown):
    assert list(latencies_us([1000] * samples)) == shown


def test_percentiles_are_those_of_the_samples():
    took = [number * 1000 for number in range(1, 1001)]
    expected = {"p50": 501, "p90": 901, "p99": 991, "p99.9": 1000, "max": 1000}
    assert latencies_us(list(reversed(took))) == expected


def test_a_distribution_goes_up_to_one_sample_and_not_beyond():
    points = cdf_us([number * 1000 for number in range(1, 1001)])
    shares = [share for share, _ in points]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] <= 1 - 1 / 1000
    assert cdf_us([1000] * 99) == []


def row(group, contender, values, **more):
    middle = sorted(values)[len(values) // 2]
    return {"group": group, "contender": contender, "values": values, "median": middle, **more}


def test_a_ratio_is_taken_round_by_round():
    """Goal: two rounds of a machine that became half as fast give one ratio, not two."""
    rows = [
        row("batches", "walengine", [30.0, 15.0], record_bytes=256),
        row("batches", "LMDB", [3.0, 1.5]),
        row("batches", "SQLite", [1.0, 0.5]),
    ]
    (made,) = ratios(rows)
    assert (made["min"], made["median"], made["max"]) == (10.0, 10.0, 10.0)
    assert (made["met"], made["note"]) == (True, "LMDB")


def test_a_missed_target_is_said():
    rows = [
        row("puts", "walengine", [5.0], concurrency=1, p50_us=[120.0]),
        row("puts", "C limit", [9.0], concurrency=1, p50_us=[100.0]),
    ]
    assert [(each["median"], each["met"]) for each in ratios(rows)] == [(1.2, False)]


@pytest.mark.parametrize(
    ("more_is_better", "now", "is_worse"),
    [
        (True, 2.01, False),
        (True, 1.99, True),
        (True, 9.0, False),
        (False, 3.99, False),
        (False, 4.01, True),
        (False, 0.1, False),
    ],
)
def test_worse_by_more_than_a_third_is_a_regression(more_is_better, now, is_worse):
    def ratio(value):
        return {"name": "r", "median": value, "more_is_better": more_is_better, "unit": "x"}

    said = regressions([ratio(now), {**ratio(1.0), "name": "new"}], [ratio(3.0)])
    assert bool(said) == is_worse


def test_syncs_are_counted_in_a_trace():
    trace = """\
7 fdatasync(3)                     = 0
7 fsync(3</a/b>)                   = -1 EIO (Input/output error)
8 fdatasync(4 <unfinished ...>
7 pwritev2(3, [{iov_base="a", iov_len=1}], 1, 0, RWF_DSYNC) = 1
8 <... fdatasync resumed>)         = 0
9 fsync(5 <unfinished ...>
9 <... fsync resumed>)             = -1 EINTR (Interrupted system call)
7 pwritev2(3, [{iov_base="a", iov_len=1}], 1, 0, RWF_NOWAIT) = 1
7 msync(0x7f, 4096, MS_ASYNC)      = 0
7 msync(0x7f, 4096, MS_SYNC)       = 0
8 fdatasync(4 <unfinished ...>
"""
    assert proof.count_syncs(trace.splitlines()) == 4


def test_the_page_has_no_figure_of_its_own():
    done = subprocess.run([sys.executable, BENCH / "readme.py", "--check"], check=False)
    assert done.returncode == 0


def test_every_block_of_the_page_is_one_that_is_made():
    blocks = {match.group(3) for match in readme.MARKED.finditer(readme.PAGE.read_text())}
    assert len(blocks) > 5
    assert blocks <= {*readme.BLOCKS, "pictures"}


def test_every_contender_says_what_its_options_are():
    for place in CONTENDERS.values():
        source = (BENCH / "contenders" / f"{place.partition(':')[0]}.py").read_text()
        _, _, body = source.partition(f"class {place.partition(':')[2]}(")
        assert "Options:" in body.split('"""')[1], place


@pytest.fixture
def plain(tmp_path):
    player = players.player(PLAIN, tmp_path)
    player.open()
    yield player
    player.kill()


def test_a_contender_answers_with_what_it_did(plain):
    answer = plain.ask("puts", 1, 60_000, 20)
    assert len(answer["ns"]) == 20
    assert sum(answer["ns"]) <= answer["wall_ns"]
    assert len(plain.ask("puts", 4, 60_000, 20)["ns"]) == 20
    assert len(plain.ask("batches", 100, 60_000, 3)["ns"]) == 3
    assert plain.ask("scan")["count"] == 20 + 20 + 300


def test_a_slice_ends_when_its_time_is_over(plain):
    begin = time.monotonic()
    assert plain.ask("puts", 2, 50, 10_000_000)["ns"]
    assert time.monotonic() - begin < 30


def test_what_a_contender_cannot_do_is_said(plain):
    with pytest.raises(CannotRunError, match="nothing like it"):
        plain.ask("verify", 1)
    with pytest.raises(CannotRunError, match="no command 'dance'"):
        plain.ask("dance")
    assert plain.ask("scan")["count"] == 0  # and it goes on


def test_a_contender_that_was_killed_left_what_was_durable(tmp_path):
    player = players.player("SQLite", tmp_path)
    player.open()
    player.ask("puts", 1, 60_000, 10)
    player.begin("puts", 1, 60_000, 10_000_000)
    time.sleep(0.1)
    player.kill()
    with sqlite3.connect(player.directory / "log.db") as db:
        assert db.execute("SELECT count(*) FROM log").fetchone()[0] >= 10


def test_a_broken_contender_does_not_stop_the_others(tmp_path):
    """Goal: one row is lost, the reason is kept, and no file stays."""
    bench = Bench(tmp_path, TINY)
    asked = []

    def work(player):
        asked.append(player.name)
        if player.name == "SQLite" and asked.count("SQLite") == 2:  # the first was the warm-up
            player.kill()
            raise players.PlayerFailedError("it ended")
        return player.ask("puts", 1, 60_000, 5)

    with bench.players([PLAIN, "SQLite"], "puts") as both:
        taken = bench.by_turns("puts", both, 2, work)
    assert asked.count("SQLite") == 2
    assert {name: len(slices) for name, slices in taken.items()} == {PLAIN: 2}
    assert bench.problems == {"puts: SQLite": "FAILED: it ended"}
    assert list(tmp_path.iterdir()) == []


def test_rows_are_what_json_knows(tmp_path):
    bench = Bench(tmp_path, TINY)
    bench.add_puts("puts", PLAIN, [{"ns": [1000, 3000], "wall_ns": 4000}] * 3, 1)
    (made,) = json.loads(json.dumps(bench.rows))
    assert (made["median"], made["samples"], made["rounds"]) == (500_000.0, 6, 3)
    assert made["latency_us"] == {"p50": 3.0, "max": 3.0}
