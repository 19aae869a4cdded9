"""Describe the extension module walengine._core to cffi.

Run by setuptools through setup.py. The declarations are those of csrc/walengine.h itself: there is
no second copy of the C API that could differ, and the C compiler checks each against the header.
"""

import os
import re
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"

# Assertions stay on: they are cheap, and what is tested is what is packaged (Python's own flags
# define NDEBUG).
COMPILE_FLAGS = ["-std=gnu11", "-O2", "-UNDEBUG", "-fvisibility=hidden", "-pthread"]
LINK_FLAGS = ["-pthread"]
# dlopen is in a library of its own before glibc 2.34; later ones have an empty one for us.
LIBRARIES = ["dl"] if sys.platform.startswith("linux") else []
# A sanitized extension needs the sanitizer's runtime in the interpreter too (LD_PRELOAD).
SANITIZE_FLAGS = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g"]


def declarations(header: str) -> str:
    """Return what cffi's parser takes of a header: all but comments and # lines."""
    without_comments = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    return re.sub(r"^[ \t]*#.*$", "", without_comments, flags=re.MULTILINE)


def relative(pattern: str) -> list[str]:
    """Return the C files that match, as setuptools wants them: relative to setup.py."""
    return sorted(path.relative_to(ROOT).as_posix() for path in CSRC.glob(pattern))


def builder() -> FFI:
    """Return the builder that setuptools asks for the sources of walengine._core."""
    sanitize = SANITIZE_FLAGS if os.environ.get("WALENGINE_SANITIZE") == "1" else []
    ffi = FFI()
    ffi.cdef(declarations((CSRC / "walengine.h").read_text(encoding="utf-8")))
    ffi.set_source(
        "walengine._core",
        '#include "walengine.h"',
        sources=relative("*.c"),
        depends=relative("*.h"),
        include_dirs=["csrc"],
        libraries=LIBRARIES,
        extra_compile_args=COMPILE_FLAGS + sanitize,
        extra_link_args=LINK_FLAGS + sanitize,
    )
    return ffi


ffi = builder()
