"""Where these suites measure."""

from places import memory_path  # noqa: F401 (a fixture)
