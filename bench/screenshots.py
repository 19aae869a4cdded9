"""Pictures for the documents: what commands print on a terminal, as PNG (make screenshots).

A command runs on a terminal of its own (a pty), so that its colours and its width are what people
see; rich turns the escape codes into HTML, and headless Chromium takes the picture.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "img"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLUMNS = 108
LINE_PIXELS = 18
COLUMN_PIXELS = 8.43  # of DejaVu Sans Mono at 14 pixels
MARGIN_PIXELS = 16
HTML_PIXELS = (1100, 3000)  # to the end of the plots, about

PAGE = f"""<!doctype html><meta charset="utf-8"><style>
body {{{{ margin: {MARGIN_PIXELS}px; background: {{background}}; color: {{foreground}} }}}}
pre {{{{ margin: 0; font: 14px/{LINE_PIXELS}px "DejaVu Sans Mono", monospace }}}}
{{stylesheet}}</style><pre>{{code}}</pre>
"""


def main() -> None:
    """Take the pictures that were asked for, by default all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    names = parser.parse_args().names or list(PICTURES)
    if browser() is None:
        raise SystemExit(f"screenshots: no browser; install one of {', '.join(BROWSERS)}")
    for name in names:
        if name not in PICTURES:
            raise SystemExit(f"screenshots: no picture {name}; there are {', '.join(PICTURES)}")
        PICTURES[name](IMAGES / f"{name}.png")
        print(f"docs/img/{name}.png")


def doctor(image: Path) -> None:
    """An empty directory of one's own, on whatever disk this machine has."""
    place = Path("/var/tmp/orders")  # noqa: S108 (its name is in the picture)
    place.mkdir(mode=0o700)
    try:
        picture(terminal("doctor", str(place)), image)
    finally:
        place.rmdir()


def bench_fsync(image: Path) -> None:
    """The quick run on whatever disk this machine has: its figures are this machine's."""
    with tempfile.TemporaryDirectory(prefix="mydb-", dir="/var/tmp") as place:
        output = terminal("bench", "fsync", place, "--quick", with_errors=False)
        picture(output.replace(place, "/var/lib/mydb"), image)


def bench_fsync_html(image: Path) -> None:
    """The page of a full run."""
    with tempfile.TemporaryDirectory(prefix="mydb-", dir="/var/tmp") as place:
        page = Path(place, "run.html")
        terminal("bench", "fsync", place, "--html", str(page), with_errors=False)
        text = page.read_text(encoding="utf-8").replace(place, "/var/lib/mydb")
        photograph(text, image, HTML_PIXELS[0], HTML_PIXELS[1])


PICTURES = {
    "doctor": doctor,
    "bench-fsync": bench_fsync,
    "bench-fsync-html": bench_fsync_html,
}


# ---- how a picture is taken ----------------------------------------------------------------------


def terminal(*arguments: str, with_errors: bool = True) -> str:
    """Return what a command of ours prints on a terminal, with the line that calls it above.

    Args:
        arguments: Of the command.
        with_errors: Standard error too; a progress bar would leave each of its frames.
    """
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "walengine", *arguments]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its if with_errors else subprocess.DEVNULL,
        env=environment,
    ) as process:
        os.close(its)
        output = b""
        with contextlib.suppress(OSError):  # how a terminal says that its other end is closed
            while data := os.read(ours, 65536):
                output += data
    os.close(ours)
    if process.returncode not in {0, 1}:
        raise SystemExit(output.decode())
    shown = f"$ walengine {' '.join(arguments)}\n"
    return shown + output.decode().replace("\r\n", "\n")


def picture(output: str, image: Path) -> None:
    """Draw a terminal's output."""
    lines = output.rstrip().splitlines()
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text.from_ansi("\n".join(lines)))
    page = console.export_html(theme=MONOKAI, code_format=PAGE)
    width = int(COLUMNS * COLUMN_PIXELS) + 2 * MARGIN_PIXELS
    photograph(page, image, width, len(lines) * LINE_PIXELS + 2 * MARGIN_PIXELS)


def photograph(page: str, image: Path, width: int, height: int) -> None:
    """Have a browser draw a page of so many pixels into a PNG file."""
    program = browser()
    if program is None:
        raise SystemExit("screenshots: the browser is gone")
    image.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "page.html")
        file.write_text(page, encoding="utf-8")
        subprocess.run(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={scratch}/profile", f"--window-size={width},{height}",
             f"--screenshot={image}", file.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip


def browser() -> str | None:
    """Return the path of a browser that can do this."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


if __name__ == "__main__":
    main()
