"""The two things that pyproject.toml cannot say: the cffi module and the wheel's tag.

cffi builds against the stable ABI by itself, but the wheel is tagged for one Python version unless
told otherwise; a free-threaded interpreter has no stable ABI, so there the tag stays as it is.
"""

import sysconfig

from setuptools import setup

has_stable_abi = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["walengine/_cffi_build.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if has_stable_abi else {},
)
