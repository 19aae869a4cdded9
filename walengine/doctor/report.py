"""A report as people read it: the verdict, then a table of findings with remedies."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from walengine.doctor.findings import Finding, Level, Report, State

STYLES = {
    Level.OK: "green",
    Level.NOTE: "cyan",
    Level.WARNING: "yellow",
    Level.PROBLEM: "bold red",
}
VERDICT_STYLES = {
    State.READY: "bold green",
    State.WARNINGS: "bold yellow",
    State.UNUSABLE: "bold red",
}


def render(report: Report) -> RenderableType:
    """Return a report for a console."""
    return Group(_findings(report), _summary(report))


def _findings(report: Report) -> Table:
    table = Table(
        title=f"walengine doctor {report.path}", title_justify="left", box=box.HORIZONTALS
    )
    table.add_column("topic", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("finding", overflow="fold")
    topic = None
    for finding in report.findings:
        if topic is not None and finding.topic != topic:
            table.add_section()
        name = finding.topic if finding.topic != topic else ""
        table.add_row(name, Text(finding.level.value, STYLES[finding.level]), _said(finding))
        topic = finding.topic
    return table


def _said(finding: Finding) -> Text:
    text = Text(finding.text)
    if finding.remedy:
        text.append(f"\n→ {finding.remedy}", "" if finding.level is Level.NOTE else "bold")
    return text


def _summary(report: Report) -> Text:
    """One line: the verdict, and how many findings of which level."""
    counts = ", ".join(_count(len(report.at(level)), level) for level in reversed(Level))
    text = Text("verdict: ")
    text.append(report.verdict.value, VERDICT_STYLES[report.verdict])
    text.append(f" ({counts})")
    return text


def _count(number: int, level: Level) -> str:
    plural = "" if number == 1 or level is Level.OK else "s"
    return f"{number} {level.value}{plural}"
