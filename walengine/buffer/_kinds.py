"""What a field of a configuration may hold: checked, and turned into what files hold, and back."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from walengine.buffer import durations

__all__ = ["Kind", "boolean", "choice", "duration", "integer", "parsed", "text", "texts"]

E = TypeVar("E", bound=enum.Enum)


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """How values of a field are checked, written and read.

    Attributes:
        check: (name, value) -> the value as it is kept; raises TypeError or ValueError.
        write: The kept value -> what a file holds.
        read: (name, what a file holds) -> a value for ``check``.
        parse: (name, text of a variable) -> what a file would hold.
    """

    check: Callable[[str, Any], Any]
    write: Callable[[Any], Any] = lambda value: value
    read: Callable[[str, Any], Any] = lambda name, value: value  # noqa: ARG005
    parse: Callable[[str, str], Any] = lambda name, text: text  # noqa: ARG005


def integer(low: int, high: int) -> Kind:
    """Return the kind of whole numbers in a range."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}")
        return value

    def parse(name: str, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{name} must be a whole number, not {text[:40]!r}") from None

    return Kind(check, parse=parse)


def boolean() -> Kind:
    """Return the kind of True and False; "true" and "false" in variables."""

    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
        return value

    def parse(name: str, text: str) -> bool:
        if text.lower() not in {"true", "false"}:
            raise ValueError(f"{name} must be true or false, not {text[:40]!r}")
        return text.lower() == "true"

    return Kind(check, parse=parse)


def text(check: Callable[[str, str], str]) -> Kind:
    """Return the kind of strings that check lets through; what it returns is kept."""

    def checked(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str, not {type(value).__name__}")
        return check(name, value)

    return Kind(checked)


def texts(check: Callable[[str, str], str]) -> Kind:
    """Return the kind of tuples of such strings; lists in files, JSON in variables."""
    one = text(check)

    def checked(name: str, value: Any) -> tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise TypeError(f"{name} must be a list of str, not {type(value).__name__}")
        return tuple(one.check(name, item) for item in value)

    return Kind(checked, write=list, parse=lambda name, text: parsed(json.loads, name, text))


def duration(low: timedelta, high: timedelta) -> Kind:
    """Return the kind of durations in a range; see durations.py for how they are written."""

    def check(name: str, value: Any) -> timedelta:
        checked = durations.from_code(name, value)
        if not low <= checked <= high:
            raise ValueError(
                f"{name} must be from {durations.to_file(low)} to {durations.to_file(high)} ms, "
                f"not {checked.total_seconds():g} s"
            )
        return checked

    def parse(name: str, text: str) -> int | str:  # noqa: ARG001 (every kind's)
        digits = text.isascii() and text.isdigit() and len(text) < 20  # noqa: PLR2004 (any ms)
        return int(text) if digits else text

    return Kind(check, write=durations.to_file, read=durations.from_file, parse=parse)


def choice(members: type[E]) -> Kind:
    """Return the kind of an enum's members, by their values in any case."""

    def check(name: str, value: Any) -> E:
        if not isinstance(value, members):
            raise TypeError(f"{name} must be a {members.__name__}, not {type(value).__name__}")
        return value

    def read(name: str, value: Any) -> E:
        if isinstance(value, members):
            return value
        found = {str(member.value): member for member in members}
        if not isinstance(value, str) or value.lower() not in found:
            raise ValueError(f"{name} must be one of {', '.join(found)}")
        return found[value.lower()]

    return Kind(check, write=lambda value: value.value, read=read)


def parsed(parse: Callable[[str], Any], what: str, text: str) -> Any:
    """Parse the text of a file or a variable; raises ValueError, which says where."""
    try:
        return parse(text)
    except RecursionError:
        raise ValueError(f"{what}: nested too deeply") from None
    except ValueError as error:
        # The message of the parser says where; its cause would show the text, secrets and all.
        raise ValueError(f"{what}: {error}") from None
