"""The C core as it was compiled, or a sentence that says why there is none."""

import sys
from pathlib import Path

if sys.platform == "win32":
    raise ImportError(
        "walengine needs POSIX files: it is tested on Linux and written for macOS; "
        "it does not work on Windows (use WSL 2 there)"
    )

try:
    from walengine._core import ffi, lib
except ModuleNotFoundError as error:
    if error.name != "walengine._core":
        raise  # cffi, for one
    raise ImportError(
        f"{Path(__file__).parent} is the source tree of walengine, whose C core is not built: "
        "run Python outside the checkout, where the installed walengine is found, "
        "or make an environment in which the checkout works with 'make .venv-test/core'"
    ) from None

__all__ = ["ffi", "lib"]
