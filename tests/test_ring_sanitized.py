"""The ring under AddressSanitizer and UndefinedBehaviorSanitizer, as the extension drives it.

The C suites run sanitized too, on the built-in ring only: liburing's object wants a Python process.
So the extension is built once more, with sanitizers, into a directory of its own, and a program
takes it through everything on both rings. Leaks count if the core allocated what was lost:
the interpreter leaks by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from needs import needs_linux, needs_ring, needs_sanitizer, needs_tool
from places import memory_path  # noqa: F401 (a fixture)
from processes import PREAMBLE
from rings import PROVIDERS, each_provider

pytestmark = pytest.mark.not_quick

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

OURS = re.compile(r"\bcsrc/\w+\.c:\d+")


@dataclass
class Build:
    """A sanitized extension with the package's modules beside it."""

    directory: Path
    preload: str  # the runtime, to be loaded first

    def run(self, reports: Path, *arguments: object, **env: str):
        sanitizers = f"log_path={reports}:exitcode=99"
        env |= {
            "PYTHONPATH": f"{self.directory}{os.pathsep}{TESTS}",
            "PYTHONMALLOC": "malloc",
            "LD_PRELOAD": self.preload,
            "ASAN_OPTIONS": f"{sanitizers}:detect_leaks=1:fast_unwind_on_malloc=1",
            "LSAN_OPTIONS": "exitcode=0:max_leaks=0",
            "UBSAN_OPTIONS": f"{sanitizers}:halt_on_error=1:print_stacktrace=1",
        }
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | env,
        )


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    needs_linux()
    library = needs_sanitizer(needs_tool("gcc"))
    directory = tmp_path_factory.mktemp("sanitized")
    out = directory / "lib"
    unwanted = shutil.ignore_patterns("*.so", "_core.c", "__pycache__")
    shutil.copytree(ROOT / "walengine", out / "walengine", ignore=unwanted)
    # Python is built with -fwrapv, which would blind the check for signed overflow.
    flags = {"WALENGINE_SANITIZE": "1", "CFLAGS": "-fno-wrapv -O1", "CC": "gcc"}
    command = ["setup.py", "-q", "build_ext", "--build-lib", out, "--build-temp", directory / "o"]
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | flags,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Build(out, library)


def findings(directory: Path) -> list[str]:
    """The reports of the sanitizers, leaks of the interpreter excepted."""
    found = []
    for path in sorted(directory.glob("report*")):
        text = path.read_text(errors="replace")
        if "ERROR: LeakSanitizer" not in text:
            found.append(text)
            continue
        leaks = re.split(r"\n\n(?=(?:Direct|Indirect) leak)", text)
        found += [leak for leak in leaks if OURS.search(leak)]
    return found


@pytest.mark.timeout(300)
@each_provider
def test_a_workout_of_the_ring_is_clean(build, memory_path, tmp_path, provider):  # noqa: F811
    needs_ring(provider)
    reports = tmp_path / "report"
    done = build.run(
        reports, TESTS / "ring_workout.py", memory_path, provider, WALENGINE_RING=provider
    )
    assert findings(tmp_path) == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"extension {build.directory}" in done.stdout
    assert done.stdout.count("done ") == 5
    assert int(re.search(r"poisoned (\d+)", done.stdout)[1]) > 0


BAD = {
    "AddressSanitizer": "_native.lib.wal_crc32c(0, _native.ffi.cast('void *', 64), 9)",
    "LeakSanitizer": """
lib, ffi = _native.lib, _native.ffi
options = ffi.new("wal_options *")
options.segment_bytes = options.unsynced_bytes_max = 1 << 20
options.record_bytes_max = options.commit_alignment = 4096
options.flags = lib.WAL_CREATE
writer = ffi.new("wal_writer **")
assert lib.wal_writer_open(sys.argv[1].encode(), options, writer, ffi.NULL, ffi.NULL) == 0
assert lib.wal_writer_close(writer[0], 0, ffi.NULL) == 0
writer[0] = ffi.NULL  # and nobody frees it
""",
}


@pytest.mark.parametrize("sanitizer", sorted(BAD))
def test_the_sanitizers_see_what_is_wrong(build, tmp_path, sanitizer):
    """Goal: no report means that nothing was wrong, and not that nobody looked."""
    done = build.run(tmp_path / "report", "-c", PREAMBLE + BAD[sanitizer], tmp_path / "wal.log")
    found = findings(tmp_path)
    assert found, done.stdout + done.stderr
    assert sanitizer in "".join(path.read_text() for path in tmp_path.glob("report*"))


def test_both_providers_are_worked_out():
    assert len(PROVIDERS) == 2
