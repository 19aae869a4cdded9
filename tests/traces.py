"""System calls of a program, as strace saw them."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from needs import needs_linux, needs_tool
from processes import command

TESTS = Path(__file__).resolve().parent

MARK = "getppid"  # os.getppid() in the program marks a place in the trace

_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|\?)(?:<.*>)?(?:\(deleted\))?(?: .*)?$")
_UNFINISHED = re.compile(r"^(\d+) +(\w+)\((.*?) *<unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")


@dataclass
class Call:
    """One system call; files stand in its arguments as 3</their/path>."""

    name: str
    arguments: str
    result: int

    @property
    def path(self) -> str:
        """What the first argument, a descriptor, is open on."""
        return re.match(r"\d+<(.*?)>(?:,|$)", self.arguments)[1]

    @property
    def numbers(self) -> list[str]:
        return [part.strip() for part in self.arguments.split(",")]


def parsed(text: str) -> list[Call]:
    """The calls in the order in which they returned."""
    calls = []
    begun: dict[tuple[str, str], str] = {}
    for line in text.splitlines():
        if match := _UNFINISHED.match(line):
            begun[match[1], match[2]] = match[3]
            continue
        whole = line
        if match := _RESUMED.match(line):
            whole = f"{match[1]} {match[2]}({begun.pop((match[1], match[2]))}{match[3]}"
        if match := _LINE.match(whole):
            result = -1 if match[4] == "?" else int(match[4])
            calls.append(Call(match[2], match[3], result))
        else:
            assert re.match(r"^\d+ +(\+\+\+|---)", line), line
    return calls


def traced(
    code: str, *arguments: object, calls: str, directory: Path, **env: str
) -> tuple[list[Call], str]:
    """Run a program under strace; the calls of its threads too, and what it printed."""
    needs_linux()
    strace = needs_tool("strace")
    output = directory / "strace"
    options = ["-f", "-qq", "-yy", "-o", output, "-e", f"trace={calls},{MARK}", "-e", "signal=none"]
    done = subprocess.run(
        [strace, *map(str, options), *command(code, *arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(TESTS)} | env,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return parsed(output.read_text()), done.stdout


def between_marks(calls: list[Call]) -> list[Call]:
    first, second = [i for i, call in enumerate(calls) if call.name == MARK]
    return calls[first + 1 : second]


def count(calls: list[Call], *names: str) -> int:
    return sum(call.name in names for call in calls)
