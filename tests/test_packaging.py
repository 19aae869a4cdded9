"""What a user installs: a wheel built from the source archive, in an environment of its own.

Goal: nothing that only the checkout has (a header, the cdef, a type marker) may be missing from
what is packaged, and the wheel must serve every later Python.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.not_quick

ROOT = Path(__file__).resolve().parent.parent

USE_IT = """
import sys
from walengine import PortableWalWriter, replay
with PortableWalWriter(sys.argv[1]) as wal:
    lsn = wal.append(b"packaged")
    wal.sync()
    print(lsn, wal.durable_lsn)
print([(record.lsn, record.data) for record in replay(sys.argv[1])])
"""


def run(*command: object, cwd: Path) -> str:
    # Neither the checkout nor the tests' environment may leak into what is tested.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=clean, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


NOT_OURS = (".*", "build", "dist", "*.egg-info", "__pycache__", "target", "walengine-*")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Built in a copy: setuptools writes into the tree, and other workers build it as well."""
    out = tmp_path_factory.mktemp("sdist")
    tree = tmp_path_factory.mktemp("tree") / "walengine"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_OURS))
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, tree, cwd=out)
    (archive,) = out.glob("walengine-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    pip_wheel = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    run(*pip_wheel, "--wheel-dir", out, sdist, cwd=out)
    (built,) = out.glob("walengine-*.whl")
    return built


def test_the_source_archive_holds_the_core(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    core = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("csrc/*.[ch]")}
    assert core | {"setup.py", "LICENSE", "walengine/_cffi_build.py"} <= names


def test_the_wheel_serves_every_later_python(wheel):
    assert "-cp311-abi3-" in wheel.name


def test_the_wheel_holds_the_library_and_its_types(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "walengine/_core.abi3.so" in names
    assert "walengine/py.typed" in names
    assert not [name for name in names if name.startswith(("csrc/", "tests/", "bench/"))]


@pytest.mark.timeout(300)
def test_the_wheel_installs_and_works(wheel, tmp_path):
    """Method: one durable append and a replay, in a fresh environment, far from the checkout."""
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    output = run(python, "-c", USE_IT, tmp_path / "wal.log", cwd=tmp_path)
    assert output.splitlines() == ["1 1", "[(1, b'packaged')]"]
    version = run(tmp_path / "venv" / "bin" / "walengine", "--version", cwd=tmp_path)
    assert "0.1.0" in version
