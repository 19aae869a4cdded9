# The extension is generated from csrc/walengine.h; _native.py alone gives it types.
from typing import Any

ffi: Any
lib: Any
