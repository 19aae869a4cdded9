"""The documents: what they show runs, what exists is in them, what they point to is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import walengine
import walengine.buffer
from walengine.cli import FILES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
COLUMNS_MAX = 100

# What the project must never name: places of the machine it was written on.
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home|root|Users)/|\blocalhost\b")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)


def run(*command: object, cwd: Path) -> str:
    # The programs of this interpreter's environment come first, as after activating it.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=os.environ | {"PATH": path}, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


# ---- what is shown runs --------------------------------------------------------------------------


def test_the_python_examples_of_the_readme_run(tmp_path):
    """Method: one after the other in one directory, as a reader would."""
    threads, tasks, *_others = blocks(README, "python")
    output = run(sys.executable, "-W", "error", "-c", threads, cwd=tmp_path)
    assert output == "1 b'order 1'\n2 b'order 2'\n3 b'order 3'\n"
    run(sys.executable, "-W", "error", "-c", tasks, cwd=tmp_path)
    assert run(sys.executable, "-m", "walengine", "replay", "orders.log", cwd=tmp_path) == (
        "order 1order 2order 3order 4"
    )


def test_the_commands_of_the_readme_run(tmp_path):
    """Method: line by line through a shell, in one directory; the outputs that say much."""
    (session,) = blocks(README, "console")
    outputs = {}
    for line in session.splitlines():
        command = line.removeprefix("$ ")
        assert command != line
        outputs[command] = run("sh", "-c", command, cwd=tmp_path)
    assert "durable 3\n" in outputs.values()
    assert "order 1\norder 2\norder 3\n" in outputs.values()


def test_the_key_value_store_keeps_what_it_acknowledged(tmp_path):
    """Method: the example as a program, then killed in the middle of a run of changes."""
    program = ROOT / "examples" / "kv.py"
    run(sys.executable, program, "shop.kv", "put", "colour", "green", cwd=tmp_path)
    assert run(sys.executable, program, "shop.kv", "get", "colour", cwd=tmp_path) == "green\n"
    source = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(program.parent)!r})\n"
        "from kv import Store\n"
        "store = Store('shop.kv')\n"
        "store.delete('colour')\n"
        "for i in range(50):\n"
        "    store.put(f'key {i}', str(i))\n"
        "    if i == 20: store.compact()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, check=False)
    assert killed.returncode == -9
    items = run(sys.executable, program, "shop.kv", "items", cwd=tmp_path)
    assert items == "{" + ", ".join(f'"key {i}": "{i}"' for i in range(50)) + "}\n"


def test_the_group_commit_example_loses_nothing(tmp_path):
    program = ROOT / "examples" / "ack_after_sync.py"
    output = run(sys.executable, program, "requests.log", cwd=tmp_path)
    assert output.startswith("200 acknowledged, 0 missing, ")


@pytest.mark.parametrize("arguments", [["kv.py", "{log}", "items"], ["ack_after_sync.py", "{log}"]])
def test_an_example_that_cannot_open_its_log_says_so_in_a_line(tmp_path, arguments):
    program, *rest = (part.format(log=tmp_path / "none" / "log") for part in arguments)
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / program, *rest],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Create the parent directory first" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_every_example_is_run():
    """A new program in examples/ needs a test here."""
    source = Path(__file__).read_text(encoding="utf-8")
    missing = [path.name for path in ROOT.glob("examples/*") if path.is_file()]
    assert [name for name in missing if f'"{name}"' not in source] == []


# ---- what exists is documented -------------------------------------------------------------------


@pytest.mark.parametrize("command", sorted(name for names in FILES.values() for name in names))
def test_every_command_is_in_the_readme(command):
    assert f"`walengine {command}`" in README


@pytest.mark.parametrize("name", [*walengine.__all__, *walengine.buffer.__all__])
def test_every_public_name_is_on_the_api_page(name):
    assert re.search(rf"`{name}\b", text_of("docs/API.md"))


def test_every_public_member_of_the_classes_that_are_used_is_on_the_api_page():
    page = text_of("docs/API.md")
    kinds = (walengine.PortableWalWriter, walengine.WalReader, walengine.buffer.AsyncConsumer,
             walengine.buffer.Consumer, walengine.buffer.Producer)  # fmt: skip
    members = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    internal = {"after_fork_in_child", "close_at_exit", "native"}
    assert [name for name in sorted(members - internal) if f"`{name}" not in page] == []


@pytest.mark.parametrize("config", [walengine.WalConfig, walengine.IoUringConfig])
def test_every_option_is_on_the_api_page(config):
    page = text_of("docs/API.md")
    assert [name for name in config.__dataclass_fields__ if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", ["docs/DURABILITY.md", "docs/FORMAT.md"])
def test_every_case_of_the_decision_table_is_in(page):
    """The labels of enum wal_case, all of them, and no other, stand in the table."""
    labels = re.findall(r"^\s+WAL_CASE_(\w+) =", text_of("csrc/walengine.h"), re.MULTILINE)
    table = re.findall(r"^\| ([A-Z_]{3,}) \|", text_of(page), re.MULTILINE)
    assert sorted(table) == sorted(labels)


def killers():
    """Return every pair of mutant and suite that the suites with mutants assert."""
    source = text_of("tests/c/test_mutants.c")
    suites = dict(re.findall(r'static const struct suite (\w+) = \{"(\w+)', source))
    pairs = re.findall(r'\{WAL_MUTANT_(\w\d+)_\w+, "[^"]*", &(\w+)\}', source)
    on_a_ring = re.findall(r"mutant_now = WAL_MUTANT_(\w\d+)_", text_of("tests/c/test_ring.c"))
    return (
        {(mutant, suites[suite]) for mutant, suite in pairs}
        | {(mutant, "ring") for mutant in on_a_ring}
        | {(mutant, "simulation") for mutant in queue_mutants()}
    )


def queue_mutants():
    source = text_of("tests/buffer/simulation/mutants.py")
    return re.findall(r'Mutant\(\s*"([A-Z]\d+)"', source)


def test_the_page_names_the_suites_that_kill_each_mutant():
    page = text_of("docs/RELIABILITY.md")
    rows = re.findall(r"^\| ([A-Z]\d+) \|[^|]*\|((?: `\w+`)+) \|$", page, re.MULTILINE)
    table = {(mutant, suite) for mutant, suites in rows for suite in re.findall(r"\w+", suites)}
    assert table == killers()
    mutants = re.findall(r"WAL_MUTANT_([A-Z]\d+)_", text_of("csrc/hooks.h"))
    assert {mutant for mutant, _ in table} == {*mutants, *queue_mutants()}


def test_every_source_file_has_its_place_in_the_architecture():
    page = text_of("docs/ARCHITECTURE.md")
    sources = [name_of(path) for path in sorted(ROOT.glob("csrc/*.c"))]
    assert [name for name in sources if f"`{name}`" not in page] == []


def test_every_suite_is_on_the_reliability_page():
    page = text_of("docs/RELIABILITY.md")
    own = {f"tests/test_{name}.py" for name in ("bench", "docs", "packaging", "tidy")}
    small = {f"tests/test_{name}.py" for name in ("config", "crc32c", "errors", "types")}
    suites = {
        name_of(path) for path in (*ROOT.glob("tests/test_*.py"), *ROOT.glob("tests/c/test_*.c"))
    }
    assert [name for name in sorted(suites - own - small) if f"`{name}`" not in page] == []


# ---- what is pointed to is there -----------------------------------------------------------------


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        page = path.parent / name if name else path
        lost = anchor and page.exists() and anchor not in anchors(page.read_text(encoding="utf-8"))
        if not page.exists() or lost:
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_files_that_are_named_exist(path):
    names = re.findall(
        r"`((?:csrc|walengine|tests|bench|docs|examples)/[\w./-]+)`",
        path.read_text(encoding="utf-8"),
    )
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):.*## ", text_of("Makefile"), re.MULTILINE))
    for path in PAGES:
        named = re.findall(r"`(?:\w+=\w+ )?make ([a-z-]+)`", path.read_text(encoding="utf-8"))
        assert [name for name in named if name not in targets] == [], path


def test_decisions_are_numbered_without_a_gap():
    numbers = [int(path.name[:4]) for path in sorted(ROOT.glob("docs/decisions/*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_are_of_one_style(path):
    """Lines of at most 100 columns but in tables; one title; no place of a machine."""
    text = path.read_text(encoding="utf-8")
    assert [
        line for line in text.splitlines() if len(line) > COLUMNS_MAX and not line.startswith("|")
    ] == []
    assert len(re.findall(r"^# ", prose(text), re.MULTILINE)) == 1
    assert text.startswith("# ")


def test_no_file_names_a_place_of_the_machine_it_was_written_on():
    patterns = ("*.md", "*.toml", "Makefile", "docs/**/*.md", "csrc/*", "walengine/**/*.py",
                "bench/*", "examples/*", "tests/**/*.py", "tests/**/*.[ch]")  # fmt: skip
    found = []
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            if path.suffix in {".so", ".o"} or not path.is_file() or path == Path(__file__):
                continue
            if path.name == "_core.c":
                continue  # generated
            if match := MACHINE_PATHS.search(path.read_text(encoding="utf-8")):
                found.append(f"{name_of(path)}: {match.group()}")
    assert found == []
