"""The buffer: what stands in a queue's manifest; the other commands have files of their own."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import click

from walengine.buffer.entry import ManifestEntry
from walengine.buffer.errors import FormatError, StorageError
from walengine.buffer.manifest import Manifest
from walengine.cli import buffer_consume, buffer_demo, buffer_operate, buffer_produce
from walengine.cli._run import CLEAN, CORRUPT, complain
from walengine.cli._show import print_json
from walengine.cli._store import read_object, store_option

# Far above any manifest that can still be swapped; a wrong file must not fill the memory.
MANIFEST_BYTES_MAX = 1 << 30

MANIFEST_PATH = "ingest/manifest"  # the default of every configuration


@click.group()
def buffer() -> None:
    """Put entries into queues in object stores, take them out, look after them."""


for _command in (
    *buffer_produce.COMMANDS,
    *buffer_consume.COMMANDS,
    *buffer_operate.COMMANDS,
    *buffer_demo.COMMANDS,
):
    buffer.add_command(_command)


@buffer.group()
def manifest() -> None:
    """Look at a queue's manifest."""


@manifest.command(short_help="Print MANIFEST as JSON.")
@click.argument("name", metavar="[MANIFEST]", required=False)
@store_option
@click.pass_context
def dump(context: click.Context, name: str | None, url: str | None) -> None:
    """Print MANIFEST as JSON; change nothing.

    MANIFEST is a file; with --store, an object's name (ingest/manifest if it is left out). An entry
    that is damaged is shown with its error, and the exit code is 4.
    """
    if url is None and not name:
        raise click.UsageError("name a file as MANIFEST, or give --store")
    name = name or MANIFEST_PATH
    data = _read_file(name) if url is None else _read_object(url, name)
    found = Manifest.parse(data, name if url is None else f"{url.rstrip('/')}/{name}")
    entries = [_entry(found, sequence) for sequence in found.sequences]
    print_json(
        {
            "version": 1,
            "epoch": found.epoch,
            "next_sequence": found.next_sequence,
            "entries": entries,
        }
    )
    context.exit(CORRUPT if any("error" in entry for entry in entries) else CLEAN)


def _read_file(name: str) -> bytes:
    with Path(name).open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        # A pipe has no size before it is read.
        data = file.read(MANIFEST_BYTES_MAX + 1) if size_bytes <= MANIFEST_BYTES_MAX else b""
    if max(size_bytes, len(data)) > MANIFEST_BYTES_MAX:
        message = f"{name}: no manifest, it has more than {MANIFEST_BYTES_MAX} bytes"
        raise FormatError(message, object=name, offset=MANIFEST_BYTES_MAX)
    return data


def _read_object(url: str, name: str) -> bytes:
    data = read_object(url, name, MANIFEST_BYTES_MAX)
    if data is None:
        message = f"there is no {name} in {url}: check both; a queue that nobody wrote to has none"
        raise StorageError(message, object=name)
    return data


def _entry(found: Manifest, sequence: int) -> dict[str, Any]:
    try:
        return _facts(found.entry(sequence))
    except FormatError as error:
        complain(error, CORRUPT)
        return {"sequence": sequence, "error": str(error), "offset": error.offset}


def _facts(entry: ManifestEntry) -> dict[str, Any]:
    """Return an entry as OpenData's tool prints it; the extension slot only if there is one."""
    metadata = [
        {
            "start_index": item.start_index,
            "ingestion_time_ms": item.ingestion_time_ms,
            "payload_base64": _base64(item.payload),
        }
        for item in entry.metadata
    ]
    facts = {"sequence": entry.sequence, "location": entry.location, "metadata": metadata}
    return facts | ({"extension_base64": _base64(entry.extension)} if entry.extension else {})


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
