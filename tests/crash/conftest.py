"""Where these suites keep their logs."""

from places import memory_path  # noqa: F401 (a fixture)
