"""walengine demo: what it counts, where it runs, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from processes import cli, ends

from walengine import PortableWalWriter, io_uring_status
from walengine.backend import ring_name

pytestmark = pytest.mark.not_quick


def test_the_demo_loses_nothing(tmp_path):
    result = cli("demo", "--seconds", 3, "--directory", tmp_path, "--json")
    assert ends(result, 0)
    facts = json.loads(result.stdout)
    assert facts["lost"] == 0
    for one in facts["backends"]:
        assert one["lost"] == 0
        assert one["kills"] >= 1
        assert one["recovered"] >= one["acknowledged"] > 0
        assert sum(one["verdicts"].values()) == one["kills"]
        assert 0 < one["p50_us"] <= one["p99_us"]
    assert list(tmp_path.iterdir()) == []


def test_the_demo_runs_each_backend_that_works_here():
    facts = json.loads(cli("demo", "--seconds", 0.2, "--json").stdout)
    status = io_uring_status()
    names = {one["backend"]: one["ring"] for one in facts["backends"]}
    if status.available:
        assert names == {"io_uring": ring_name(status.ring, status.ring_version), "pwrite": None}
        assert facts["skipped"] == {}
    else:
        assert names == {"pwrite": None}
        assert facts["skipped"] == {"io_uring": str(status)}


def test_the_demo_says_which_backend_it_skipped_and_why():
    """Method: a ring that cannot be had, since liburing was asked for and is hidden."""
    facts = json.loads(without_liburing("demo", "--seconds", "0.2", "--json").stdout)
    assert [one["backend"] for one in facts["backends"]] == ["pwrite"]
    assert "liburing is not installed" in facts["skipped"]["io_uring"]
    table = without_liburing("demo", "--seconds", "0.2").stdout.decode()
    assert "skipped: io_uring does not work here: " in table


def without_liburing(*arguments):
    """Run the command line where liburing is asked for and cannot be found."""
    program = "import sys; sys.modules['liburing'] = None; from walengine.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        env=os.environ | {"WALENGINE_RING": "liburing"},
        capture_output=True,
        check=False,
    )


def test_the_demo_runs_beside_a_directory_of_the_same_name(tmp_path):
    """Goal: in a checkout, whose walengine/ has no compiled core, the installed one is meant."""
    (tmp_path / "walengine").mkdir()
    (tmp_path / "walengine" / "__init__.py").write_text("raise SystemExit('the decoy')")
    result = subprocess.run(
        [sys.executable, "-P", "-m", "walengine", "demo", "--seconds", "0.5"],
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    assert ends(result, 0)


def test_the_demo_shows_a_table(tmp_path):
    out = cli("demo", "--seconds", 1, "--directory", tmp_path).stdout.decode()
    for word in ("acknowledged", "recovered", "lost", "verdicts", "durable appends per second"):
        assert word in out


def test_the_demo_notices_a_loss(tmp_path, monkeypatch):
    """Negative control: a log that forgets an acknowledged record fails the demo's own count."""
    from walengine import demo  # noqa: PLC0415 (patched here only)

    outcome = demo.Outcome("pwrite")
    with PortableWalWriter(tmp_path / "log") as wal:
        for lsn in range(1, 4):
            wal.append(demo.record(lsn) if lsn != 2 else b"not what was acknowledged")
    monkeypatch.setattr(demo, "_write_until_killed", lambda *_: 5)
    demo._round(tmp_path / "log", 0, outcome)
    assert (outcome.acknowledged, outcome.recovered, outcome.lost) == (5, 3, 3)


def test_the_demo_says_in_one_line_that_it_has_no_space(tmp_path):
    """Method: a limit on the size of files stands in for a full disk."""
    command = f"ulimit -f 100; exec {sys.executable} -P -m walengine demo --directory ."
    result = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert ends(result, 1, "the demo needs about 64 MiB in ")
    assert len(result.stderr.splitlines()) == 1


def test_the_demo_says_in_one_line_that_it_cannot_make_its_directory():
    result = cli("demo", "--directory", "/proc")
    assert ends(result, 1, "the demo needs about 64 MiB in /proc")
    assert len(result.stderr.splitlines()) == 1
