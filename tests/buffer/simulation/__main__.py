"""Run one seed and print what happened: python -m simulation SEED [KIND] in tests/buffer."""

import sys

from simulation.plan import KINDS, draw
from simulation.run import run

seed = int(sys.argv[1])
kinds = tuple(sys.argv[2:]) or tuple(KINDS)
verdict = run(seed, kinds)
print(draw(seed, kinds))
for at_s, *what in verdict.trace:
    print(f"{at_s:14.6f}", *what)
print(verdict.violation or "no violation", dict(verdict.counts))
