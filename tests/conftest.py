"""Fixtures that every suite may use, and what pytest prints besides its own.

WALENGINE_SEED         repeats a run of the randomised tests
WALENGINE_SCALE        multiplies their counts (default 1.0)
WALENGINE_REQUIRE_ALL  =1 turns every skip into a failure
WALENGINE_COUNTS       where counts go (default build/reliability.jsonl)

make test-quick (a scale below FULL_SCALE) has two minutes on two processors. A test that takes more
than a second there is left to make test, by one line beside it:

    pytestmark = pytest.mark.not_quick                        # a file
    @pytest.mark.not_quick                                    # a test
    pytest.param("liburing", marks=pytest.mark.not_quick)     # one of its parameters

What several suites have as a parameter is in QUICK below.
"""

import os
import secrets
from collections.abc import Callable, Generator

import hypothesis
import pytest
import support_report
from engines import ENGINES, Engine, environment
from needs import needs_engine

SEED = int(os.environ.get("WALENGINE_SEED") or str(secrets.randbits(63)), 0)
# The controller of several workers imports this first: they inherit its seed.
os.environ["WALENGINE_SEED"] = str(SEED)
SCALE = float(os.environ.get("WALENGINE_SCALE") or 1.0)

# No deadline: a sanitizer, a busy machine or a slow disk is no reason to fail an example.
hypothesis.settings.register_profile(
    "walengine", deadline=None, max_examples=max(10, int(100 * SCALE)), print_blob=True
)
hypothesis.settings.load_profile("walengine")


@pytest.fixture
def seed() -> int:
    """The seed of this run's randomised tests; a failure prints how to repeat it."""
    return SEED


@pytest.fixture
def scale() -> float:
    """What every count is multiplied by: small in make test-quick, large in make soak."""
    return SCALE


@pytest.fixture
def scaled() -> Callable[[int], int]:
    """scaled(1000) is 1000 times the scale, at least 1."""
    return lambda count: max(1, int(count * SCALE))


def chosen(name: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = ENGINES[name]
    for variable, value in environment(engine).items():
        monkeypatch.setenv(variable, value)
    needs_engine(engine)
    return engine


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """What logs write with, for engines.config(): the test runs on each."""
    return chosen(request.param, monkeypatch)


@pytest.fixture(params=[name for name, engine in ENGINES.items() if engine.ring])
def ring_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The same with a ring."""
    return chosen(request.param, monkeypatch)


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """count("kills", 200) reports how much a test did, in the table at the end."""
    suite = request.module.__name__.removeprefix("test_")
    return lambda name, value: support_report.write_count(suite, name, value)


def pytest_report_header() -> list[str]:
    required = "required" if support_report.require_all() else "not required"
    return [f"walengine: seed {SEED}, scale {SCALE:g}, everything to run: {required}"]


# Left to runs of SOAK_SCALE: what other suites have on these engines too, and what takes long.
LATER = {
    "test_concurrency": ("builtin", "pwrite-direct"),
    "test_ctrl_c": ("pwrite-direct",),
    "test_disk_full": ("builtin", "pwrite-direct"),
    "test_failures_under_load": ("pwrite-direct",),
    "test_idle_kills": ("builtin", "pwrite-direct"),
}
LATER_SCALE = 3

# Of these parameters make test-quick has these values: one of each kind.
QUICK_ENGINES = ("pwrite", "builtin", "liburing-direct")
QUICK = {
    "engine": QUICK_ENGINES,
    "ring_engine": QUICK_ENGINES,
    "filesystem": ("ext4",),
    "device": ("ext4",),
    "store_config": ("memory", "local"),
}
FULL_SCALE = 0.5


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    later = [item for item in items if is_for_later(item)]
    config.hook.pytest_deselected(items=later)
    items[:] = [item for item in items if item not in set(later)]


def is_for_later(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec else {}
    if SCALE < FULL_SCALE and not is_quick(item, params):
        return True
    engine = params.get("engine") or params.get("ring_engine")
    return SCALE < LATER_SCALE and engine in LATER.get(item.module.__name__, ())


def is_quick(item: pytest.Item, params: dict[str, object]) -> bool:
    if item.get_closest_marker("not_quick"):
        return False
    return all(params[name] in values for name, values in QUICK.items() if name in params)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    support_report.fail_if_required(report)
    if report.failed and "seed" in getattr(item, "fixturenames", ()):
        settings = f"WALENGINE_SEED={SEED} WALENGINE_SCALE={SCALE:g}"
        report.sections.append(("to repeat", f"{settings} python -m pytest '{item.nodeid}'"))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    support_report.fail_if_required(report)
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    support_report.write_counts_table(terminalreporter)
    support_report.write_skips_table(terminalreporter)
