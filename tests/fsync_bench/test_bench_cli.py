"""The command as users run it: every filesystem, every file it writes, every way it is refused."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_figures import bench
from needs import (
    needs_filesystem,
    needs_io_uring,
    needs_linux,
    needs_package,
    needs_root,
    needs_tool,
)
from places import disk, run, small_tmpfs
from processes import cli, ends, output_of, start

from walengine import is_io_uring_available
from walengine.fsync_bench import place as place_facts
from walengine.fsync_bench.rows import rows_of

pytestmark = pytest.mark.not_quick

SHORT = ("--quick", "--seconds-per-row", "0.01")
NO_SYNC = ("--seconds-per-row", "0.01", "--only", "no sync")

# All is imported before anything is given up: the checkout may be its owner's alone.
AS_MAIN = """
from walengine.cli import bench, main
sys.argv[1:] = ["bench", "fsync", *sys.argv[1:]]
"""


# ---- filesystems ---------------------------------------------------------------------------------


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
def test_the_full_table_on(filesystem, memory_path):
    """Every row is measured, the disk is named, and nothing stays behind."""
    needs_filesystem(filesystem)
    with disk(memory_path, filesystem, 300) as made:
        before = set(made.path.iterdir())
        report = bench(made.path)
        assert set(made.path.iterdir()) == before
    rows = report["rows"]
    assert [row["key"] for row in rows] == [row.key for row in rows_of(quick=False)]
    has_ring = is_io_uring_available()
    for row in rows:
        assert row["problem"] is None or ("io_uring" in row["method"] and not has_ring), row
        assert row["commits"] > 0 or not has_ring
    assert report["place"]["filesystem"] == filesystem
    assert report["place"]["devices"][0]["name"] == made.device.removeprefix("/dev/")
    assert report["complete"] is True
    assert report["configurations"]


def test_a_disk_that_is_nearly_full_serves_all_rows(memory_path):
    """xfs gives the blocks of a file that is gone back later, and the next row needs them at once.

    btrfs does so too, and is left out: what it says is free is more than a file can have.
    """
    needs_filesystem("xfs")
    with disk(memory_path, "xfs", 300) as made:
        facts = os.statvfs(made.path)
        with (made.path / "others").open("wb") as file:
            free = facts.f_bavail * facts.f_frsize
            os.posix_fallocate(file.fileno(), 0, free - (48 << 20))
        report = bench(made.path, seconds="0.03")
    full = [row["key"] for row in report["rows"] if "full" in (row["problem"] or "")]
    assert full == []


def test_tmpfs_is_called_what_it_is(tmp_path):
    needs_root()
    needs_tool("mount")
    with small_tmpfs(tmp_path, 64) as place:
        report = bench(place, *SHORT)
        done = cli("bench", "fsync", place, *SHORT)
    assert report["place"]["in_memory"] is True
    assert "nothing survives power loss" in report["suspicions"][0]
    assert ends(done, 0)
    assert "lives in memory" in done.stdout.decode()


def test_without_io_uring_the_rest_is_measured(tmp_path):
    """Method: a seccomp filter refuses io_uring, as containers do."""
    code = 'import errno, seccomp\nseccomp.refuse(errno.EPERM, "io_uring_setup")\n' + AS_MAIN
    output = output_of(f"{code}main()", tmp_path, *SHORT, "--json")
    report = json.loads(output)
    refused = [row for row in report["rows"] if row["problem"]]
    assert {row["method"] for row in refused} == {"io_uring linked", "io_uring direct"}
    assert all("seccomp" in row["problem"] for row in refused)
    assert {choice["config"] for choice in report["configurations"]} <= {
        'WalConfig(backend="pwrite")',
        "WalConfig(io=IoUringConfig(direct_io=True))",
    }


@pytest.mark.parametrize("ring", ["builtin", "liburing"])
def test_whose_ring_it_is_can_be_chosen(ring, tmp_path):
    needs_io_uring()
    if ring == "liburing":
        needs_package("liburing")
    report = bench(tmp_path, "--only", "io_uring", WALENGINE_RING=ring)
    assert {row["ring"] for row in report["rows"]} == {ring}
    assert all(row["commits"] > 0 for row in report["rows"])


def test_an_ordinary_user_measures_too(memory_path):
    """With nothing pinned allowed as well: the ring's memory is plain then."""
    needs_root()
    place = memory_path / "theirs"
    place.mkdir()
    os.chown(place, 65534, 65534)
    memory_path.chmod(0o755)
    code = (
        "import resource\n"
        f"{AS_MAIN}\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))\n"
        "os.setgid(65534)\nos.setuid(65534)\nmain()\n"
    )
    report = json.loads(output_of(code, place, *SHORT, "--json"))
    assert all(row["commits"] > 0 for row in report["rows"] if row["ring"] is None)
    assert list(place.iterdir()) == []


# ---- what is refused -----------------------------------------------------------------------------


def refused(done, *texts):
    """One sentence on standard error, and nothing else anywhere."""
    assert done.stdout == b""
    assert ends(done, 1, *texts)
    assert len(done.stderr.decode().splitlines()) == 1
    return True


def test_a_missing_directory(tmp_path):
    assert refused(cli("bench", "fsync", tmp_path / "none"), "there is no such directory")


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    assert refused(cli("bench", "fsync", tmp_path / "file"), "this is not a directory")
    assert refused(cli("bench", "fsync", tmp_path / "file" / "x"), "no such directory|not a dir")


def test_a_filesystem_that_is_mounted_read_only(memory_path):
    needs_filesystem("ext4")
    with disk(memory_path, "ext4") as made:
        run("mount", "-o", "remount,ro", made.path)
        assert refused(cli("bench", "fsync", made.path), "mounted read-only")


@pytest.mark.parametrize("free_mib", [0, 20])
def test_a_full_disk(free_mib, memory_path):
    needs_filesystem("ext4")
    with disk(memory_path, "ext4") as made:
        facts = os.statvfs(made.path)
        with (made.path / "others").open("wb") as file:
            used = facts.f_bavail * facts.f_frsize - (free_mib << 20) - (1 << 20)
            os.posix_fallocate(file.fileno(), 0, used)
        assert refused(cli("bench", "fsync", made.path), "is full: the bench needs 32 MiB")


def test_a_disk_that_fills_while_it_is_measured(tmp_path):
    """Method: the injector lets every write fail with ENOSPC."""
    code = (
        "import errno\n_native._fault_set(_native._FAULT_WRITE | _native.lib.WAL_FAULT_CQE_WRITE,"
        "_native._FAULT_FAIL, errno.ENOSPC)\n" + AS_MAIN + "main()\n"
    )
    process = start(code, tmp_path, *SHORT)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == ""
    assert "nothing could be measured: the disk is full" in error
    assert "Traceback" not in error


def test_a_directory_of_somebody_else(memory_path):
    needs_root()
    code = f"{AS_MAIN}\nos.setgid(65534)\nos.setuid(65534)\nmain()\n"
    memory_path.chmod(0o755)
    for mode, text in ((0o755, "may not write here"), (0o700, "may not")):
        place = memory_path / f"{mode:o}"
        (place / "inner").mkdir(parents=True)
        place.chmod(mode)
        target = place if mode == 0o755 else place / "inner"
        process = start(code, target)
        output, error = process.communicate(timeout=60)
        assert (process.returncode, output) == (1, "")
        assert text in error
        assert len(error.splitlines()) == 1


def test_wrong_usage(tmp_path):
    assert ends(cli("bench", "fsync", tmp_path, "--only", "telepathy"), 2, "telepathy")
    assert ends(cli("bench", "fsync", tmp_path, "--seconds-per-row", "0"), 2)
    assert ends(cli("bench", "fsync", tmp_path, "--seconds-per-row", "nan"), 2, "no number of sec")
    assert ends(cli("bench", "nothing"), 2)


# ---- what it writes ------------------------------------------------------------------------------


def test_all_its_files_at_once(tmp_path):
    needs_package("matplotlib")
    place = tmp_path / "place"
    place.mkdir()
    names = {kind: tmp_path / f"run.{kind}" for kind in ("csv", "html", "png")}
    options = [word for kind, path in names.items() for word in (f"--{kind}", path)]
    before = cli("bench", "fsync", place, *SHORT, "--json")
    (tmp_path / "before.json").write_bytes(before.stdout)
    done = cli("bench", "fsync", place, *SHORT, *options, "--compare", tmp_path / "before.json")
    assert ends(done, 0)
    assert done.stderr == b""
    text = done.stdout.decode()
    for part in ("one writer", "What this disk can do", "beside ", "p50 there", "etcd"):
        assert part in text
    assert names["html"].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert len(names["csv"].read_text(encoding="utf-8").splitlines()) == 1 + len(
        rows_of(quick=True)
    )
    assert names["png"].read_bytes().startswith(b"\x89PNG")
    assert list(place.iterdir()) == []


def test_a_comparison_goes_into_json_too(tmp_path):
    before = bench(tmp_path, "--only", "fdatasync, growing")
    (tmp_path / "before.json").write_text(json.dumps(before), encoding="utf-8")
    after = bench(tmp_path, "--only", "growing", "--compare", tmp_path / "before.json")
    assert {line["key"] for line in after["comparison"]} <= {row["key"] for row in before["rows"]}
    assert after["comparison"]


def test_files_that_cannot_be_written_are_known_before_anything_is_measured(tmp_path):
    lost = tmp_path / "none" / "run.html"
    assert refused(cli("bench", "fsync", tmp_path, "--html", lost), "no such directory to write")
    done = cli("bench", "fsync", tmp_path, "--compare", tmp_path / "none.json")
    assert refused(done, "none.json: No such file")


def test_figures_that_do_not_get_into_a_file_are_printed_all_the_same(tmp_path):
    needs_linux()
    lost, kept = Path("/dev/full"), tmp_path / "run.csv"
    done = cli("bench", "fsync", tmp_path, *NO_SYNC, "--html", lost, "--csv", kept)
    assert ends(done, 1, "/dev/full: No space left on device. The figures are not in this file.")
    assert "What this disk can do" in done.stdout.decode()
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize("name", [b"a$\\no$", b"\xff", b"[/b]"], ids=["formula", "bytes", "markup"])
def test_odd_names_go_into_every_report(name, tmp_path):
    needs_package("matplotlib")
    place = tmp_path / os.fsdecode(name)
    place.mkdir(parents=True)
    earlier = place / "before.json"
    earlier.write_bytes(cli("bench", "fsync", place, *NO_SYNC, "--json").stdout)
    names = ("--html", tmp_path / "run.html", "--png", tmp_path / "run.png")
    done = cli("bench", "fsync", place, *NO_SYNC, *names, "--compare", earlier)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\nbeside" in done.stdout
    assert (tmp_path / "run.png").exists()
    assert "no sync" in (tmp_path / "run.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"p50_us": "fast"}, "p50_us of no sync/zero-filled/4096/1 is no number"),
        ({"elapsed_us": None}, "elapsed_us of"),
        ({"histogram": [[1.0, float("inf")]]}, "infinity"),
        (None, "recursion"),
    ],
)
def test_an_earlier_run_that_was_tampered_with(change, word, tmp_path):
    file = tmp_path / "before.json"
    file.write_text("[" * 200_000, encoding="utf-8")
    if change is not None:
        before = bench(tmp_path, "--only", "no sync")
        before["rows"][0] |= change
        file.write_text(json.dumps(before), encoding="utf-8")
    done = cli("bench", "fsync", tmp_path, *NO_SYNC, "--compare", file)
    assert ends(done, 1, word)
    assert done.stdout == b""


def test_a_machine_that_hides_its_load_is_measured(tmp_path, monkeypatch):
    def hidden():
        raise OSError("Load averages are unobtainable")

    monkeypatch.setattr(os, "getloadavg", hidden)
    assert place_facts.facts_of(tmp_path)["load_before"] is None


def test_png_without_matplotlib_is_refused_first(tmp_path):
    code = "import importlib.util as u\nfind = u.find_spec\n"
    code += "u.find_spec = lambda name, *a: None if name == 'matplotlib' else find(name, *a)\n"
    process = start(f"{code}{AS_MAIN}main()", tmp_path, "--png", tmp_path / "plots.png")
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert "pip install 'walengine[plot]'" in error


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path):
    command = [sys.executable, "-m", "walengine", "bench", "fsync", tmp_path, *SHORT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


# ---- signals -------------------------------------------------------------------------------------


def begun(place, *options):
    """A run that is measuring: its progress is on a terminal of its own."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "walengine", "bench", "fsync", place,
               "--seconds-per-row", "0.4", *options]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, stdin=subprocess.DEVNULL
    )
    os.close(terminal)
    seen = b""
    while b"fdatasync, growing" not in seen:  # the first row is behind it
        seen += os.read(controller, 4096)
    return process, controller


def rest_of(controller):
    seen = b""
    while True:
        try:
            chunk = os.read(controller, 4096)
        except OSError as error:  # the other side is closed
            assert error.errno == errno.EIO  # noqa: PT017 (the loop ends by it)
            os.close(controller)
            return seen.decode()
        seen += chunk


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_it_with_what_there_is(number, code, word, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    process, controller = begun(place, "--html", tmp_path / "run.html")
    process.send_signal(number)
    output = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait(timeout=30) == code
    assert f"{word}: " in rest_of(controller)
    assert "no sync" in output
    assert "What this disk can do" in output
    assert (tmp_path / "run.html").exists()
    assert list(place.iterdir()) == []


def test_json_of_a_run_that_was_ended_says_so(tmp_path):
    process, controller = begun(tmp_path, "--json")
    process.send_signal(signal.SIGINT)
    report = json.loads(process.stdout.read())
    process.stdout.close()
    assert process.wait(timeout=30) == 130
    rest_of(controller)
    assert report["complete"] is False
    assert report["rows"][0]["method"] == "no sync"
    assert len(report["rows"]) < len(rows_of(quick=False))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_whenever_it_ends(number, tmp_path, seed, scaled, count):
    """Method: signals at times spread over the first rows, preparation included."""
    ended = 0
    for i in range(scaled(5)):
        command = [sys.executable, "-m", "walengine", "bench", "fsync", tmp_path, *SHORT, "--json"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.2 + (seed + i * 7919) % 400 / 1000)
        process.send_signal(number)
        ended += process.wait(timeout=30) != 0
        assert list(tmp_path.iterdir()) == []
    count(f"runs ended by {number.name}", ended)


def test_a_stuck_disk_does_not_hold_ctrl_c(tmp_path):
    """Method: a write that hangs in the kernel, as on a dead device; here the injector's thread."""
    code = (
        "from walengine import _native_bench\n"
        "real = _native_bench.NativeBench.run\n"
        "def stuck(self, *a, **k):\n"
        "    print('stuck', flush=True)\n"
        "    time.sleep(60)\n"
        "_native_bench.NativeBench.run = stuck\n" + AS_MAIN + "main()\n"
    )
    process = start(code, tmp_path, *SHORT)
    assert process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted: 0 of" in error
    assert output == ""
