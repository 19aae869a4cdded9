"""Where the crash suites keep their logs."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def memory_path(tmp_path):
    """A directory in memory where there is one: SIGKILL leaves the page cache alone, so a disk
    would only make these suites slow."""
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="walengine-", dir=MEMORY))
    yield path
    shutil.rmtree(path, ignore_errors=True)
