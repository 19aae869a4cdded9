"""Two tables at the end of the output: how much was tested, and what was skipped and why.

Counts are lines of JSON in one file, so that the C suites' and pytest's stand side by side.
"""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def require_all() -> bool:
    return os.environ.get("WALENGINE_REQUIRE_ALL") == "1"


def counts_path() -> Path:
    return Path(os.environ.get("WALENGINE_COUNTS") or ROOT / "build" / "reliability.jsonl")


def write_count(suite: str, name: str, value: int) -> None:
    path = counts_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"suite": suite, "name": name, "value": value}) + "\n")


def read_counts() -> dict[tuple[str, str], int]:
    """Return the newest value of each count; a suite that ran twice is listed once."""
    counts = {}
    if counts_path().exists():
        for line in counts_path().read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            counts[entry["suite"], entry["name"]] = entry["value"]
    return counts


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def fail_if_required(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure where WALENGINE_REQUIRE_ALL asks for it; an xfail too."""
    if report.skipped and require_all():
        report.longrepr = f"skipped, and WALENGINE_REQUIRE_ALL=1: {reason_of(report)}"
        report.outcome = "failed"


def write_counts_table(terminal: pytest.TerminalReporter) -> None:
    counts = read_counts()
    if not counts:
        return
    terminal.section("how much was tested")
    width = max(len(f"{suite}.{name}") for suite, name in counts)
    for (suite, name), value in sorted(counts.items()):
        terminal.line(f"{f'{suite}.{name}':<{width}}  {value:>14,}")


def write_skips_table(terminal: pytest.TerminalReporter) -> None:
    terminal.section("skipped")
    skips = [(report.nodeid, reason_of(report)) for report in terminal.stats.get("skipped", [])]
    if not skips:
        terminal.line("nothing skipped")
        return
    width = max(len(nodeid) for nodeid, _ in skips)
    for nodeid, reason in sorted(skips):
        terminal.line(f"{nodeid:<{width}}  {reason}")
