"""Looking after a queue: buffer stats, gc, adopt."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from walengine.buffer import ConsumerConfig, collect_garbage
from walengine.buffer import adopt as adopt_prefix
from walengine.buffer._environment import Environment
from walengine.buffer._queue import Queue
from walengine.buffer.location import parse_batch_name
from walengine.buffer.store.probe import make_store
from walengine.cli._queue_options import configuration, queue_options
from walengine.cli._run import CLEAN, FAILED, complain
from walengine.cli._show import json_option, print_facts, print_json


@click.command(short_help="Show how long a queue is, and how old.")
@queue_options
@click.option("--objects", is_flag=True, help="Count the objects below the prefix too: a listing.")
@json_option
def stats(
    url: str | None,
    config_file: Path | None,
    manifest_path: str | None,
    data_path_prefix: str | None,
    objects: bool,
    as_json: bool,
) -> None:
    """Show how long a queue is, and how old; change nothing."""
    config = configuration(ConsumerConfig, url, config_file, manifest_path, data_path_prefix)
    facts = asyncio.run(_facts(config, objects=objects))
    if as_json:
        print_json(facts)
    else:
        print_facts(f"{facts.pop('store')} {facts.pop('manifest')}", facts)


@click.command(short_help="Delete batch objects that nobody needs, once.")
@queue_options
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted.")
@click.option("--grace-period", metavar="DURATION", help='Delete nothing younger, like "10min".')
@json_option
@click.pass_context
def gc(
    context: click.Context,
    url: str | None,
    config_file: Path | None,
    manifest_path: str | None,
    data_path_prefix: str | None,
    dry_run: bool,
    grace_period: str | None,
    as_json: bool,
) -> None:
    """Delete batch objects that no manifest lists or will list, once.

    A consumer does this by itself, every five minutes. This is for a queue that has none; one that
    is active goes on.
    """
    config = configuration(
        ConsumerConfig, url, config_file, manifest_path, data_path_prefix,
        gc_grace_period=grace_period,
    )  # fmt: skip
    found = asyncio.run(collect_garbage(config, dry_run=dry_run))
    facts: dict[str, Any] = {
        "objects": found.objects,
        "would_delete" if dry_run else "deleted": len(found.deleted),
        "bytes": found.deleted_bytes,
        "failed": len(found.failed),
        "kept": {reason.value: count for reason, count in found.kept.items()},
        "refused": found.refused,
    }
    if as_json:
        print_json(facts)
    else:
        print_facts(f"{config.object_store.url} {config.data_path_prefix}", facts)
    for candidate, reason in found.failed[:10]:
        complain(f"{candidate.name} was not deleted: {reason}", FAILED)
    context.exit(FAILED if found.failed else CLEAN)


@click.command(short_help="Give a prefix to another manifest.")
@queue_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def adopt(
    url: str | None,
    config_file: Path | None,
    manifest_path: str | None,
    data_path_prefix: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Make --manifest the owner of --prefix, whoever was.

    Batches that the former manifest lists are garbage from then on, and will be deleted. Stop
    whoever uses it first.
    """
    config = configuration(ConsumerConfig, url, config_file, manifest_path, data_path_prefix)
    place = f"{config.object_store.url} {config.data_path_prefix}"
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked here: --yes, if that is what you want")
        click.confirm(
            f"{place}: whatever its batches belong to now, give them to {config.manifest_path}?",
            abort=True, err=True,
        )  # fmt: skip
    done = asyncio.run(adopt_prefix(config))
    facts = {"owner": done.owner, "manifest": done.manifest_path, "previous": done.previous}
    if as_json:
        print_json(facts)
    else:
        print_facts(place, facts)


async def _facts(config: ConsumerConfig, *, objects: bool) -> dict[str, Any]:
    """Read what is there; nothing is written, not even to find out whether that would work."""
    environment = Environment(store=make_store(config.object_store), owns_store=True)
    queue = Queue(environment, config)
    try:
        snapshot = await queue.read_manifest()
        manifest = snapshot.manifest
        oldest = manifest.entry(manifest.sequences.start) if len(manifest) else None
        times_ms = [item.ingestion_time_ms for item in oldest.metadata] if oldest else []
        facts: dict[str, Any] = {
            "store": config.object_store.url,
            "manifest": config.manifest_path,
            "exists": snapshot.exists,
            "epoch": manifest.epoch,
            "queue_length": len(manifest),
            "first_sequence": manifest.sequences.start if len(manifest) else None,
            "next_sequence": manifest.next_sequence,
            "oldest_age_seconds": (
                max(environment.wall_ms() - times_ms[0], 0) / 1000 if times_ms else None
            ),
            "manifest_bytes": len(manifest.data) if snapshot.exists else 0,
        }
        if objects:
            listed = {manifest.location(sequence) for sequence in manifest.sequences}
            facts |= await _objects(queue, listed)
    finally:
        await queue.aclose()
    return facts


async def _objects(queue: Queue, listed: set[str]) -> dict[str, int]:
    counts = {"batch_objects": 0, "batch_bytes": 0, "unlisted_objects": 0, "unlisted_bytes": 0}
    async for info in queue.store.list(queue.data_path_prefix):
        if parse_batch_name(info.name, queue.data_path_prefix) is None and info.name not in listed:
            continue
        counts["batch_objects"] += 1
        counts["batch_bytes"] += info.size_bytes
        if info.name not in listed:
            counts["unlisted_objects"] += 1
            counts["unlisted_bytes"] += info.size_bytes
    return counts


COMMANDS = (stats, gc, adopt)
