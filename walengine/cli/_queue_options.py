"""Which queue a command means: --store, --config, --manifest and --prefix, as a configuration."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from walengine.buffer.config import ConsumerConfig, ProducerConfig
from walengine.cli._store import FORMS, place_of, store_option

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", ProducerConfig, ConsumerConfig)

VARIABLES = "WALENGINE_BUFFER_"
CONFIG_BYTES_MAX = 1 << 20

ROLES: dict[type, str] = {ProducerConfig: "producer", ConsumerConfig: "consumer"}
DEFAULTS = {"manifest_path": "ingest/manifest", "data_path_prefix": "ingest"}


def queue_options(command: F) -> F:
    """Give a command the options that name a queue."""
    for option in reversed(
        (
            store_option,
            click.option(
                "--config",
                "config_file",
                metavar="FILE",
                type=click.Path(path_type=Path),
                help="TOML: the fields of ProducerConfig and ConsumerConfig; what only one of them "
                "has goes under [producer] or [consumer].",
            ),
            click.option(
                "--manifest", "manifest_path", metavar="NAME",
                help=f"The queue's manifest (default: {DEFAULTS['manifest_path']}).",
            ),
            click.option(
                "--prefix", "data_path_prefix", metavar="NAME",
                help=f"What its batches are below (default: {DEFAULTS['data_path_prefix']}).",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def configuration(
    kind: type[C],
    url: str | None,
    config_file: Path | None,
    manifest_path: str | None,
    data_path_prefix: str | None,
    **settings: Any,
) -> C:
    """Return the configuration: options go before the file, the file before the environment.

    Args:
        kind: ProducerConfig or ConsumerConfig.
        url: --store; names in options, and the defaults, are then below its prefix.
        config_file: --config.
        manifest_path: --manifest.
        data_path_prefix: --prefix.
        settings: Further fields; None where an option was not given.

    Raises:
        click.UsageError: They name no queue, or a field is wrong.
    """
    values = _from_environment(kind)
    if config_file is not None:
        values |= _from_file(kind, config_file)
    for option, given in (("--manifest", manifest_path), ("--prefix", data_path_prefix)):
        if given == "":
            raise click.UsageError(f"{option}: the name is empty")
    names = {"manifest_path": manifest_path, "data_path_prefix": data_path_prefix}
    if url is not None:
        place = place_of(url)
        values["object_store"] = place.store.to_dict(reveal_secrets=True)
        for name, given in names.items():
            if given is not None or place.prefix:
                values[name] = place.name(given or DEFAULTS[name])
    else:
        values |= {name: given for name, given in names.items() if given is not None}
    values |= {name: value for name, value in settings.items() if value is not None}
    if "object_store" not in values:
        raise click.UsageError(f"name the store: --store URL ({FORMS}), or --config FILE")
    if values["object_store"].get("type") == "InMemory":
        raise click.UsageError(
            "the store is InMemory: that is one process's own, and this command's ends with it"
        )
    try:
        return kind.from_dict(values)
    except (TypeError, ValueError) as error:
        raise click.UsageError(_hint(kind, config_file, str(error))) from None


def _from_environment(kind: type[C]) -> dict[str, Any]:
    """Return the fields that variables set."""
    try:
        return kind.parse_env(VARIABLES, os.environ)
    except ValueError as error:
        raise click.UsageError(f"in the environment: {error}") from None


def _from_file(kind: type[C], path: Path) -> dict[str, Any]:
    """Return the fields for this kind that a file has."""
    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise click.UsageError(f"--config {path}: {error.strerror}") from None
    if len(text) > CONFIG_BYTES_MAX:
        raise click.UsageError(f"--config {path}: no configuration has {len(text)} bytes and more")
    try:
        values = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        # The parser's message may show a line, and a line may hold a key; where is enough.
        where = str(error).rpartition("(at ")[2].rstrip(")") if "(at " in str(error) else "UTF-8"
        raise click.UsageError(f"--config {path}: it is no TOML ({where})") from None
    own: dict[str, Any] = {}
    for role in ROLES.values():
        table = values.pop(role, {})
        if not isinstance(table, dict):
            raise click.UsageError(f"--config {path}: {role} must be a table: [{role}]")
        if role == ROLES[kind]:
            own = table
    values |= own
    if not isinstance(values.get("object_store", {}), dict):
        raise click.UsageError(f"--config {path}: object_store must be a table: [object_store]")
    return values


def _hint(kind: type, config_file: Path | None, problem: str) -> str:
    where = f"--config {config_file}: " if config_file is not None else ""
    other = next(role for each, role in ROLES.items() if each is not kind)
    hint = f" (a field of the {other} goes under [{other}])" if " has no " in problem else ""
    return f"{where}{problem}{hint}"
