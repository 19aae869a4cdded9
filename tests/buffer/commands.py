"""The command line in this process: a tenth of the time that a process of its own takes.

What needs a process (signals, kills, a pipe that closes) uses processes.cli.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from unittest import mock

from walengine.cli import main


def cli(*arguments: object, data: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line; standard input is a file, the outputs are kept."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        source = io.TextIOWrapper(file)
        with (
            mock.patch.multiple(sys, stdin=source, stdout=out, stderr=err),
            mock.patch.object(sys, "argv", ["walengine", *map(str, arguments)]),
            mock.patch.dict(os.environ, env),
        ):
            try:
                main()
            except SystemExit as error:
                code = error.code
    for stream in (out, err):
        stream.flush()
    return subprocess.CompletedProcess(sys.argv, code, out.buffer.getvalue(), err.buffer.getvalue())
