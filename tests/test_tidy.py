"""Style that is executed and not requested: the rules that no linter of ours knows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
C_FILE_LINES_MAX = 700
PYTHON_FILE_LINES_MAX = 500

LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX|HACK|WIP)\b")


def files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file())


C_FILES = files("csrc/*.[ch]", "tests/**/*.[ch]", "bench/**/*.[ch]")
PYTHON_FILES = files("setup.py", "walengine/**/*.py", "tests/**/*.py", "bench/**/*.py")
OTHER_FILES = files("*.md", "docs/**/*.md", "Makefile", "pyproject.toml", ".ci/run")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def c_functions(lines: list[str]) -> list[tuple[str, int, int]]:
    """Return (first line, its number, length) of each function, as clang-format lays them out.

    A definition begins in the first column and ends where its braces do; what ends with a
    semicolon is a declaration or a type.
    """
    functions = []
    begin = None
    depth = 0
    for number, line in enumerate(lines, 1):
        if begin is None and re.match(r"[A-Za-z_]", line):
            begin = number
        if begin is None:
            continue
        code = re.sub(r'"(\\.|[^"\\])*"|\'(\\.|[^\'\\])+\'|/\*.*?\*/|//.*', "", line).rstrip()
        depth += code.count("{") - code.count("}")
        if depth > 0 or not code.endswith(("}", ";")):
            continue
        if code.endswith("}"):
            functions.append((lines[begin - 1], begin, number - begin + 1))
        begin = None
    return functions


@pytest.mark.parametrize("path", C_FILES, ids=name_of)
def test_c_functions_fit_on_a_screen(path):
    long = [
        f"line {number}: {lines} lines: {head}"
        for head, number, lines in c_functions(lines_of(path))
        if lines > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_the_function_counter_counts():
    """Goal: a broken counter must not pass every file in silence."""
    source = """
int one(void) { return 1; }

struct kind {
    int a;
};

int declared(int a,
             int b);

static int two(int a,
               int b) {
    if (a == '{') { puts("{"); } /* { */
    return a + b;
}
"""
    assert c_functions(source.splitlines()) == [
        ("int one(void) { return 1; }", 2, 1),
        ("static int two(int a,", 11, 5),
    ]
    assert len(c_functions(lines_of(ROOT / "csrc" / "crc32c.c"))) == 11


@pytest.mark.parametrize("path", C_FILES + PYTHON_FILES, ids=name_of)
def test_lines_fit_and_are_clean(path):
    bad = [
        f"line {number}: {line}"
        for number, line in enumerate(lines_of(path), 1)
        if len(line) > COLUMNS_MAX or "\t" in line or line != line.rstrip()
    ]
    assert bad == []


@pytest.mark.parametrize("path", C_FILES + PYTHON_FILES, ids=name_of)
def test_files_are_not_too_long(path):
    limit = PYTHON_FILE_LINES_MAX if path.suffix == ".py" else C_FILE_LINES_MAX
    assert len(lines_of(path)) <= limit


@pytest.mark.parametrize("path", C_FILES + PYTHON_FILES + OTHER_FILES, ids=name_of)
def test_nothing_is_left_for_later(path):
    if path == Path(__file__):
        return  # it names what it looks for
    assert [line for line in lines_of(path) if LEFTOVERS.search(line)] == []


def test_the_core_does_not_know_python():
    assert [name_of(path) for path in files("csrc/*") if "Python.h" in path.read_text()] == []


def test_skips_are_in_one_file():
    """So that what a machine lacks is named the same way everywhere: tests/needs.py."""
    skip = re.compile(r"pytest\.(skip|importorskip|mark\.skipif)\b")
    here = {ROOT / "tests" / "needs.py", Path(__file__)}
    found = [path for path in files("tests/**/*.py") if skip.search(path.read_text("utf-8"))]
    assert sorted({*found} - here) == []


def test_every_make_target_says_what_it_does():
    rules = [line for line in lines_of(ROOT / "Makefile") if line.startswith(".PHONY:")]
    targets = {target for rule in rules for target in rule.split()[1:]}
    helped = [line for line in lines_of(ROOT / "Makefile") if re.match(r"[a-z-]+:.*## ", line)]
    explained = {line.split(":")[0] for line in helped}
    assert targets == explained


def test_every_c_file_says_what_it_is():
    silent = [name_of(path) for path in C_FILES if not path.read_text().startswith("/*")]
    assert silent == []
