"""What the configurations have in common: fields that are checked, and forms they are written in.

A field is made by ``setting``, which says what kind of value it holds. The kind checks it, and
turns it into what dicts, JSON, TOML and environment variables can hold, and back.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Self

from walengine.buffer._kinds import Kind, parsed


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
        return cls.from_dict(parsed(json.loads, "JSON", text))

    def to_toml(self) -> str:
        """Return the dict as TOML, without secrets."""
        return "\n".join(_toml_lines(self.to_dict(), ()))

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Read TOML; raises as ``from_dict`` does."""
        return cls.from_dict(parsed(tomllib.loads, "TOML", text))

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


# ---- helpers -------------------------------------------------------------------------------------


def _kinds(form: type[Form]) -> dict[str, Kind]:
    fields = dataclasses.fields(form)  # type: ignore[arg-type]
    return {each.name: each.metadata["kind"] for each in fields}


def _required(form: type[Form]) -> list[str]:
    fields = dataclasses.fields(form)  # type: ignore[arg-type]
    return [each.name for each in fields if each.default is dataclasses.MISSING]


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
