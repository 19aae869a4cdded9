"""Collection by hand: the real collect_garbage, which takes nothing over and has no epoch."""

from __future__ import annotations

from simulation.consuming import config_of
from simulation.producing import Dice, inline
from walengine.buffer import ManifestLostError, StorageError, collect_garbage
from walengine.buffer._environment import Environment


def collect(run, name):
    """Start a process that makes one pass."""

    async def program(process):
        environment = Environment(
            store=run.client(process, name),
            wall_ms=process.wall_ms,
            random=Dice(0, process.chance),
            offload=inline,
        )
        config = config_of(run.plan.consumers[0], run.plan.grace_s)
        try:
            found = await collect_garbage(config, environment=environment)
        except (StorageError, ManifestLostError) as error:
            run.refused(process, error)
        else:
            run.counts["passes by hand"] += 1
            run.counts["passes by hand that refused"] += found.refused is not None

    run.world.start(name, program, random_seed=f"{run.seed} {name}")
