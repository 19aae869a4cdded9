"""A single pass of the collector, for who runs no consumer or wants to look first."""

from __future__ import annotations

from walengine.buffer._environment import Environment, open_environment
from walengine.buffer._queue import Queue
from walengine.buffer.collector._background import grace_ms
from walengine.buffer.collector._pass import Collection, Pass
from walengine.buffer.config import ConsumerConfig

__all__ = ["Collection", "collect_garbage"]


async def collect_garbage(
    config: ConsumerConfig, *, dry_run: bool = False, environment: Environment | None = None
) -> Collection:
    """Delete the batch objects that no manifest lists or will list; once.

    It takes nothing over: the epoch stays, a consumer that is active goes on. The prefix must have
    an owner (see ``adopt``), and it must be this configuration's manifest. Never let one queue's
    prefix lie within another's: this collector takes direct children only, OpenData's takes all.

    Args:
        config: Names store, manifest, prefix and grace period.
        dry_run: Delete nothing; tell what would have been.
        environment: For tests and embedding; None: opened from the configuration, and closed.

    Raises:
        PairingError: The prefix is another manifest's.
        ManifestLostError: The manifest was deleted or replaced during the pass.
        FormatError: The manifest is broken.
        StorageError: The store failed before anything was deleted.
    """
    around = environment or await open_environment(config.object_store)
    try:
        queue = Queue(around, config)
        one = Pass(
            queue, queue.read_manifest,
            now_ms=around.wall_ms(), grace_ms=grace_ms(config), dry_run=dry_run,
        )  # fmt: skip
        return await one.run()
    finally:
        if environment is None:
            await around.aclose()


collect_garbage.__module__ = "walengine.buffer"
