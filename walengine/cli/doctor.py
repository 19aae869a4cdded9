"""The machine and a place for logs: doctor."""

from __future__ import annotations

import click

from walengine import __version__
from walengine.cli._run import CLEAN, FAILED
from walengine.cli._show import json_option, not_empty, print_json, print_renderable
from walengine.doctor import examine
from walengine.doctor.report import render


@click.command(short_help="Tell whether a log can work here, how well, and what to change.")
@click.argument(
    "path", metavar="[DIR]", type=click.Path(readable=False), default=".", callback=not_empty
)
@json_option
@click.pass_context
def doctor(context: click.Context, path: str, as_json: bool) -> None:
    """Tell whether a log can work in DIR (default: here), how well, and what to change.

    Looks at the kernel, io_uring and what may block it, the filesystem, the devices behind it, free
    space, limits, permissions and the clock. DIR may be a log, or not exist yet. Leaves nothing in
    DIR and writes to nothing else.

    Exit codes: 0 ready, also with warnings; 1 not usable.
    """
    report = examine(path)
    if as_json:
        print_json({"version": __version__} | report.as_dict())
    else:
        print_renderable(render(report))
    context.exit(CLEAN if report.usable else FAILED)
