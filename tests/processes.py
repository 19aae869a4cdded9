"""Python programs in processes of their own, for what one process cannot show of itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

PREAMBLE = f"""
import os, signal, sys, threading, time
import walengine
from walengine import PortableWalWriter, WalConfig, IoUringConfig, _native
sys.path.append({str(Path(__file__).parent)!r})
import engines
from engines import config, put
"""


def command(code: str, *arguments: object) -> list[str]:
    """The command line of a program that has the usual names; sys.argv holds its arguments."""
    program = PREAMBLE + textwrap.dedent(code)
    return [sys.executable, "-c", program, *map(str, arguments)]


def run(code: str, *arguments: object, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output comes back as text."""
    return subprocess.run(
        command(code, *arguments), capture_output=True, text=True, timeout=seconds, check=False
    )


def output_of(code: str, *arguments: object) -> str:
    """What a program prints that must succeed and say nothing on standard error."""
    result = run(code, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program whose output is read, and whose input is written, while it runs."""
    return subprocess.Popen(
        command(code, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def cli(
    *arguments: object, data: bytes = b"", cwd: Path | None = None, seconds: float = 60, **env: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as users do."""
    return subprocess.run(
        [sys.executable, "-m", "walengine", *map(str, arguments)],
        input=data,
        capture_output=True,
        cwd=cwd,
        timeout=seconds,
        check=False,
        env=os.environ | env,
    )


def ends(result, code, *texts):
    """The exit code, no traceback, and what standard error must say."""
    error = result.stderr.decode()
    assert result.returncode == code, error
    assert "Traceback" not in error
    for text in texts:
        assert re.search(text, error), error
    return True
