"""The C loops as a process that runs one whenever it is asked to, by turns with the engine."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median

WARM_UP = 20


class CannotRunError(Exception):
    """This machine cannot do what a row measures; the text says why."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run of a loop took."""

    durations_ns: list[int]
    wall_ns: int

    @property
    def p50_us(self) -> float:
        """The middle one."""
        return median(self.durations_ns) / 1000

    @property
    def per_second(self) -> float:
        """How many were done in a second."""
        return len(self.durations_ns) / self.wall_ns * 1e9


class Loops:
    """``limit serve``, begun with the first loop.

    Args:
        program: The C loops.
        directory: Where they write.
        frame_bytes: What one write through the page cache has.
    """

    def __init__(self, program: Path, directory: Path, frame_bytes: int) -> None:
        self._command = [str(program), "serve", str(directory), str(frame_bytes)]
        self._process: subprocess.Popen[str] | None = None
        self._warm: set[tuple[str, int]] = set()

    def run(self, name: str, count: int, extra: int = 0) -> Ran:
        """Run a loop, warmed up if it is its first time.

        Raises:
            CannotRunError: The machine has not what it needs.
        """
        if (name, extra) not in self._warm:
            self._ask(name, WARM_UP, extra)
            self._warm.add((name, extra))
        return self._ask(name, count, extra)

    def _ask(self, name: str, count: int, extra: int) -> Ran:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the C loops have no pipes")
        process.stdin.write(f"{name} {count} {extra}\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError(f"the C loops ended in the middle of {name!r}; see above")
        answer = json.loads(line)
        if "error" in answer:
            raise CannotRunError(f"C loop {name}: {answer['error']}")
        return Ran(answer["ns"], answer["wall_ns"])

    def close(self) -> None:
        """End the process; its files have no names and go with it."""
        process, self._process = self._process, None
        self._warm.clear()
        if process is None:
            return
        process.kill()
        process.communicate()
