"""What the configurations have in common: fields that are checked, and forms they are written in.

A field is made by ``setting``, which says what kind of value it holds. The kind checks it, and
turns it into what dicts, JSON, TOML and environment variables can hold, and back.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import timedelta
from typing import Any, Self, TypeVar

from walengine.buffer import durations

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


def setting(kind: Kind, default: Any = dataclasses.MISSING, *, secret: bool = False) -> Any:
    """Return a dataclass field of this kind; a secret shows in no repr and in no dump."""
    return field(default=default, repr=not secret, metadata={"kind": kind, "secret": secret})


class Form:
    """Base of the configurations: dict, JSON, TOML and environment, there and back."""

    __slots__ = ()

    def to_dict(self, *, reveal_secrets: bool = False) -> dict[str, Any]:
        """Return what ``from_dict`` makes this of; without the secrets, unless they are wanted."""
        written = {}
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if value is None or (each.metadata["secret"] and not reveal_secrets):
                continue
            if isinstance(value, Form):
                written[each.name] = value.to_dict(reveal_secrets=reveal_secrets)
            else:
                written[each.name] = each.metadata["kind"].write(value)
        return written

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that a dict, of a JSON or TOML file say, holds.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value is out of its range, a key is not known, or one is missing.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"{cls.__name__} must be a table, not {type(values).__name__}")
        kinds = _kinds(cls)
        refuse_unknown(cls.__name__, values, kinds)
        missing = [name for name in _required(cls) if name not in values]
        if missing:
            raise ValueError(f"{cls.__name__}: {', '.join(missing)} must be given")
        return cls(**{name: kinds[name].read(name, value) for name, value in values.items()})

    def to_json(self) -> str:
        """Return the dict as JSON, without secrets."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read JSON; raises as ``from_dict`` does."""
        return cls.from_dict(_parsed(json.loads, "JSON", text))

    def to_toml(self) -> str:
        """Return the dict as TOML, without secrets."""
        return "\n".join(_toml_lines(self.to_dict(), ()))

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Read TOML; raises as ``from_dict`` does."""
        return cls.from_dict(_parsed(tomllib.loads, "TOML", text))

    def to_env(self, prefix: str = "WALENGINE_BUFFER_") -> dict[str, str]:
        """Return variables that ``from_env`` reads as this, without secrets.

        A field's variable is its name in capitals behind the prefix: flush_interval is
        ``WALENGINE_BUFFER_FLUSH_INTERVAL``, the store's path
        ``WALENGINE_BUFFER_OBJECT_STORE_PATH``. Lists are written as JSON.
        """
        return dict(_variables(self.to_dict(), prefix))

    @classmethod
    def from_env(
        cls, prefix: str = "WALENGINE_BUFFER_", environ: Mapping[str, str] | None = None
    ) -> Self:
        """Read variables; those of other configurations with the same prefix are left alone.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value is out of its range, or one is missing.
        """
        environ = os.environ if environ is None else environ
        return cls.from_dict(cls.parse_env(prefix, environ))

    @classmethod
    def parse_env(cls, prefix: str, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return the dict that the variables mean."""
        found = {}
        for name, kind in _kinds(cls).items():
            text = environ.get(prefix + name.upper())
            if text is not None:
                found[name] = kind.parse(prefix + name.upper(), text)
        return found


def check_all(form: Form) -> None:
    """Check every field, and keep each in the form that its kind gives it."""
    for each in dataclasses.fields(form):  # type: ignore[arg-type]
        value = getattr(form, each.name)
        if value is None and each.default is None:
            continue
        object.__setattr__(form, each.name, each.metadata["kind"].check(each.name, value))


def refuse_unknown(what: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise ValueError if a key is not known: what is misspelt must not be left out in silence."""
    unknown = sorted(str(key)[:40] for key in values if key not in known)
    if unknown:
        raise ValueError(
            f"{what} has no {', '.join(map(repr, unknown))}; there is {', '.join(known)}"
        )


# ---- kinds ---------------------------------------------------------------------------------------


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

    return Kind(checked, write=list, parse=lambda name, text: _parsed(json.loads, name, text))


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


# ---- helpers -------------------------------------------------------------------------------------


def _kinds(form: type[Form]) -> dict[str, Kind]:
    fields = dataclasses.fields(form)  # type: ignore[arg-type]
    return {each.name: each.metadata["kind"] for each in fields}


def _required(form: type[Form]) -> list[str]:
    fields = dataclasses.fields(form)  # type: ignore[arg-type]
    return [each.name for each in fields if each.default is dataclasses.MISSING]


def _parsed(parse: Callable[[str], Any], what: str, text: str) -> Any:
    try:
        return parse(text)
    except RecursionError:
        raise ValueError(f"{what}: nested too deeply") from None
    except ValueError as error:
        # The message of the parser says where; its cause would show the text, secrets and all.
        raise ValueError(f"{what}: {error}") from None


def _toml_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"[{'.'.join(path)}]"] if path else []
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines += [f"{key} = {_toml(value)}" for key, value in table.items() if key not in tables]
    for key, value in tables.items():
        lines += ["", *_toml_lines(value, (*path, key))]
    return lines if path else [*lines, ""]


def _toml(value: Any) -> str:
    """Write a value: TOML's strings, numbers and lists are JSON's, but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _variables(table: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        name = prefix + key.upper()
        if isinstance(value, Mapping):
            found += _variables(value, name + "_")
        else:
            found.append((name, value if isinstance(value, str) else json.dumps(value)))
    return found
