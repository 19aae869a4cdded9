"""Names of tables and columns as the caller gives them, checked before any database is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["IDENTITIES", "checked_columns", "checked_name"]

IDENTITIES: Final = "_identities"
"""Behind the state table's name it is the name of the table of identities."""


def checked_name(what: str, name: object) -> str:
    """Return the name of a table, a column or a sink.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, has a NUL, or half of a surrogate pair.
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {type(name).__name__}")
    if not name or "\x00" in name:
        raise ValueError(f"{what} must not be empty, and no NUL in it")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} {name!r} is no text") from None
    return name


def checked_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns.

    Raises:
        TypeError: They are no list of str.
        ValueError: There is none, or one twice.
    """
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Sequence):
        raise TypeError(f"columns must be a list of names, not {type(columns).__name__}")
    names = tuple(checked_name("a column", name) for name in columns)
    if not names:
        raise ValueError("columns must name at least one")
    if len(set(names)) != len(names):
        raise ValueError("columns name one of them twice")
    return names
