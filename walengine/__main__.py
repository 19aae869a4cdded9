"""The command walengine, and python -m walengine."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported is no traceback either."""
    try:
        from walengine.cli import main as run  # noqa: PLC0415 (within the guard)

        run()
    except KeyboardInterrupt:
        sys.stderr.write("walengine: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
