"""Thousands of seeds of the queue in virtual time: nothing lost, doubled, disordered or deleted.

The real producer, consumer and collector run in simulation/, where every store operation and timer
is an event whose place is drawn from the seed. In tests/buffer, `python -m simulation SEED KIND`
prints all that happened in one of them.
"""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from simulation.mutants import MUTANTS
from simulation.plan import KINDS
from simulation.run import run, run_all

SEEDS_OF_A_KIND = 210
"""16 kinds: 3,360 seeds at scale 1."""

SEEDS_OF_A_MUTANT_MAX = 300
TRACE_LINES_SHOWN = 60


def told(verdict):
    """Say what was violated, how to repeat it, and what happened before."""
    tail = "\n".join(" ".join(map(str, line)) for line in verdict.trace[-TRACE_LINES_SHOWN:])
    repeat = f"cd tests/buffer && python -m simulation {verdict.seed} {verdict.kind!r}"
    return f"{verdict.violation}\nto see all of it: {repeat}\n{tail}"


@pytest.mark.parametrize("kind", KINDS)
def test_no_seed_violates_an_invariant(kind, seed, scaled, count):
    """Goal: B1 to B6 hold whatever happens. Method: the oracle judges each run."""
    total = Counter()
    seeds = scaled(SEEDS_OF_A_KIND)
    for verdict in run_all(range(seed, seed + seeds), (kind,)):
        assert verdict.violation is None, told(verdict)
        total += verdict.counts
    count(f"seeds, {kind}", seeds)
    count(f"batches listed, {kind}", total["batches listed"])


def test_the_same_seed_gives_the_same_trace(seed, scaled, count):
    """Goal: a failure can be repeated. Method: seeds twice, every line of both traces compared."""
    seeds = range(seed, seed + scaled(60))
    first = [verdict.trace for verdict in run_all(seeds)]
    second = [verdict.trace for verdict in run_all(seeds)]
    assert first == second
    assert len({hashlib.sha256(repr(trace).encode()).digest() for trace in first}) == len(first)
    count("seeds run twice", len(seeds))


def test_the_same_seed_gives_the_same_trace_in_another_process(seed):
    """Goal: nothing depends on addresses or on the hashes of strings, which differ there."""
    seeds = range(seed, seed + 10)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from simulation.run import run_all\n"
        "print([v.trace for v in run_all(map(int, sys.argv[2:]))])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script, Path(__file__).parent, *map(str, seeds)],
        capture_output=True, text=True, check=True, timeout=100,
    ).stdout  # fmt: skip
    assert printed.strip() == str([verdict.trace for verdict in run_all(seeds)])


@pytest.mark.not_quick
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_is_caught(mutant, seed, count):
    """Goal: the simulation can fail. Method: switch a guard off, and count seeds until it does."""
    with mutant.alive() as options:
        for tried in range(1, SEEDS_OF_A_MUTANT_MAX + 1):
            if run(seed + tried, mutant.kinds, **options).violation is not None:
                break
        else:
            pytest.fail(f"{mutant.name}, {mutant.bug}: not caught in {tried} seeds")
    count(f"seeds until {mutant.name} is caught", tried)
