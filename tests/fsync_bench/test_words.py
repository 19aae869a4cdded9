"""From figures to words: every sentence that depends on a figure, with made figures."""

import ast
import re
import subprocess
import sys

import pytest
from made_figures import FLASH, figures, made_run, without

from walengine import replay
from walengine.fsync_bench.advice import DEFAULT, DIRECT, PWRITE, choices
from walengine.fsync_bench.results import Run
from walengine.fsync_bench.suspicion import evidence
from walengine.fsync_bench.verdict import best_of, duration, words_of

LONE = "fdatasync/zero-filled/4096/1"
LINKED = "io_uring linked/zero-filled/4096/1"
DIRECT_ONE = "io_uring direct/zero-filled/4096/1"
GROUP = "fdatasync/zero-filled/4096/16-group"
FLYING = "io_uring direct/zero-filled/4096/16"
BULK = "io_uring direct/zero-filled/1048576/4"
ETCD = "fdatasync/fallocated/2300/1"


def configs(run):
    return {choice.need: choice.config for choice in choices(run)}


# ---- which configuration -------------------------------------------------------------------------


def test_where_nothing_is_clearly_faster_the_default_serves_everybody():
    assert configs(made_run()) == {"any number of writers": DEFAULT}


def test_a_slow_ring_makes_pwrite_the_choice_of_one_writer():
    assert configs(made_run({LINKED: (140, 7_000)})) == {
        "one writer at a time": PWRITE,
        "many writers at once": DEFAULT,
    }


def test_depth_that_pays_makes_direct_io_the_choice_of_many_tasks():
    assert configs(made_run({FLYING: (200, 80_000)})) == {
        "one writer at a time": DEFAULT,
        "many writers in an event loop": DIRECT,
    }
    (choice,) = (each for each in choices(made_run({FLYING: (200, 80_000)})) if each.for_a_loop)
    assert "keep WalConfig() for them" in choice.why
    assert "AsyncWalWriter" in choice.code


def test_direct_io_for_everybody_is_said_once():
    (choice,) = choices(made_run({DIRECT_ONE: (60, 16_000), FLYING: (200, 80_000)}))
    assert choice.config == DIRECT
    assert choice.need == "one writer, or many in an event loop"
    assert choice.why.count("4096 bytes") == 1
    assert "keep WalConfig() for them" in choice.why


def test_without_io_uring_it_is_pwrite():
    gone = {LINKED: None, DIRECT_ONE: None, FLYING: None}
    run = made_run(gone, {"has_io_uring": False})
    assert set(configs(run).values()) == {PWRITE}


def test_what_was_not_measured_is_not_called_missing():
    """Method: --only fdatasync, on a machine that has io_uring."""
    assert choices(made_run({LINKED: None, DIRECT_ONE: None, FLYING: None})) == []


@pytest.mark.parametrize("kind", ["fuse", "fuse.sshfs", "fuseblk", "virtiofs"])
def test_on_fuse_direct_io_is_never_the_choice(kind):
    run = made_run({DIRECT_ONE: (60, 16_000), FLYING: (200, 80_000)}, {"filesystem": kind})
    assert configs(run) == {"any number of writers": DEFAULT}
    (text,) = evidence(run)
    assert "FUSE drops the sync" in text
    assert not [key for key in best_of(run) if "io_uring direct" in key]
    assert evidence(made_run({DIRECT_ONE: None, FLYING: None, BULK: None}, run.place)) == []


@pytest.mark.parametrize("kind", ["overlay", "zfs", "9p", None])
def test_direct_io_is_the_choice_only_where_walengine_would_use_it(kind):
    run = made_run({DIRECT_ONE: (60, 16_000), FLYING: (200, 80_000)}, {"filesystem": kind})
    assert configs(run) == {"any number of writers": DEFAULT}
    assert evidence(run) == []
    assert not [key for key in best_of(run) if "io_uring direct" in key]


def test_a_run_that_was_ended_early_gives_no_advice_from_nothing():
    run = Run({}, 1.0, True, False, (figures("no sync/zero-filled/4096/1", 1.0, 9e5),))
    assert choices(run) == []
    assert "Too little" in words_of(run).summary[0]


@pytest.mark.parametrize("changes", [{}, {LINKED: (140, 7_000)}, {FLYING: (200, 80_000)}])
def test_the_code_that_is_recommended_runs(changes, tmp_path):
    """As it is printed, in a directory of its own."""
    found = choices(made_run(changes))
    assert found
    for number, choice in enumerate(found):
        ast.parse(choice.code)
        place = tmp_path / str(number)
        place.mkdir()
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", choice.code],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "append_durable" in choice.code
        assert [record.data for record in replay(place / "wal.log")] == [b"a record"]


# ---- what others ask of a disk -------------------------------------------------------------------


def etcd(p99_us, commits=5_000):
    values = {key: pair for key, pair in FLASH.items() if key != ETCD}
    rows = [figures(key, *pair) for key, pair in values.items()]
    rows.append(figures(ETCD, 200, 5_000, p99_us=p99_us, commits=commits))
    return words_of(made_run(results=rows)).etcd


def test_etcds_threshold_is_named_with_its_source():
    for text in (etcd(9_999.0), etcd(10_000.0)):
        assert "less than 10 ms" in text
        assert "https://etcd.io/docs/" in text


def test_etcds_threshold_is_held_against_the_disk():
    assert "within it" in etcd(9_999.0)
    assert "too slow for etcd" in etcd(10_000.0)


def test_a_liar_is_not_recommended_to_etcd():
    words = words_of(made_run({LONE: (2, 400_000)}))
    assert "if they are syncs at all" in words.etcd
    assert "if they are syncs" not in etcd(9_999.0)


def test_too_few_samples_say_nothing_about_etcd():
    run = without(made_run(), "p99_us", to=None)
    assert "nothing can be said" in words_of(run).etcd


def test_postgres_gets_two_rates_and_no_threshold():
    text = words_of(made_run()).postgres
    assert "9,000 commits/s with 1 writer, 40,000 commits/s with 16" in text
    assert "publishes no threshold" in text
    assert "not measured" in words_of(made_run({"fdatasync/recycled/8192/1": None})).postgres


# ---- what the disk can do ------------------------------------------------------------------------


def test_the_summary_has_the_figures():
    text = " ".join(words_of(made_run()).summary)
    for part in (
        "4 KiB durable in 100 µs (99 of 100 in 300 µs)",
        "9,500 commits/s",
        "2.0 times as long",
        "make 45,000 commits/s, 4.7 times one writer's",
        "46,000 commits/s",
        "2,517 MB/s through the page cache",
        "419 MB/s to a file that grows",
    ):
        assert part in text


def test_states_that_cost_the_same_are_said_to():
    text = " ".join(words_of(made_run({"fdatasync/growing/4096/1": (101, 9_400)})).summary)
    assert "makes no difference" in text


def test_the_best_rows_are_the_fastest_that_can_be_true():
    assert best_of(made_run()) == [DIRECT_ONE, FLYING, "io_uring direct/zero-filled/1048576/4"]
    assert LONE in best_of(made_run({LONE: (50, 18_000)}))
    assert LONE not in best_of(made_run({LONE: (5, 180_000)}))


@pytest.mark.parametrize(
    ("us", "text"),
    [(1.25, "1.2 µs"), (99.6, "100 µs"), (1_081.0, "1.08 ms"), (25_600.0, "25.6 ms"),
     (2_500_000.0, "2.50 s")],
)  # fmt: skip
def test_durations_are_said_as_people_do(us, text):
    assert duration(us) == text


# ---- lies ----------------------------------------------------------------------------------------


def test_an_honest_disk_is_not_suspected_and_not_acquitted():
    words = words_of(made_run())
    assert words.suspicions == []
    assert re.search("no proof", words.trust[0])


def test_too_fast_to_be_true_is_evidence():
    found = evidence(made_run({LONE: (19.9, 45_000)}))
    assert len(found) == 1
    assert "fdatasync" in found[0]
    assert evidence(made_run({LONE: (20.0, 45_000)})) == []


def test_a_sync_that_adds_nothing_is_evidence():
    made = {"no sync/zero-filled/4096/1": (30, 30_000), LONE: (40, 24_000)}
    (text,) = evidence(made_run(made))
    assert "adds next to nothing" in text


def test_memory_is_evidence_enough():
    run = made_run({LONE: (2, 400_000)}, {"filesystem": "tmpfs", "in_memory": True})
    (text,) = evidence(run)
    assert "tmpfs" in text
    assert "nothing survives" in text


def test_barriers_that_are_off_are_evidence():
    (text,) = evidence(made_run(place={"barriers_off": "nobarrier"}))
    assert "nobarrier" in text


def device(**facts):
    usual = {"name": "sda", "kind": "SCSI or SATA", "write_cache": "write back",
             "reported_cache": None, "rotational": False, "hosted": False}  # fmt: skip
    return usual | facts


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ([device()], None),
        ([device(write_cache="write through")], None),
        ([device(write_cache="write through", reported_cache="write back")], "send it no flush"),
        ([device(name="dm-0", kind="LVM", write_cache="write through"), device()],
         "dm-0 passes no flush on to sda"),
        ([device(rotational=True)], "a cache answers"),
        ([device(rotational=True, hosted=True)], None),
        ([device(rotational=True, kind="virtio")], None),
    ],
)  # fmt: skip
def test_a_cache_that_nobody_flushes_is_evidence(devices, words):
    found = evidence(made_run(place={"devices": devices}))
    if words is None:
        assert found == []
    else:
        assert len(found) == 1
        assert words in found[0]


def test_evidence_is_never_called_proof():
    trust = words_of(made_run({LONE: (2, 400_000)})).trust
    assert trust[-1].startswith("This is evidence, not proof")
