"""Rewrite the table of counts in docs/RELIABILITY.md from what the suites counted.

Run by `make reliability`, after `make test`.
"""

import sys
from pathlib import Path

from support_report import counts_path, read_counts

PAGE = Path(__file__).resolve().parent.parent / "docs" / "RELIABILITY.md"
BEGIN = "<!-- counts: begin -->\n"
END = "<!-- counts: end -->\n"


def table() -> str:
    rows = [
        f"| {suite} | {name.replace('_', ' ')} | {value:,} |"
        for (suite, name), value in sorted(read_counts().items())
    ]
    return "\n".join(["", "| suite | what | count |", "|---|---|---:|", *rows, "", ""])


def main() -> int:
    if not read_counts():
        print(f"there are no counts in {counts_path()}: run make test first", file=sys.stderr)
        return 1
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(head + BEGIN + table() + END + tail, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
