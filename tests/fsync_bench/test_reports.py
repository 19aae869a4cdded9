"""What is written down: HTML that needs nothing else, CSV, JSON there and back, comparisons."""

import csv
import io
import json
from html.parser import HTMLParser

import pytest
from made_figures import FLASH, figures, made_run, without
from needs import needs_package
from rich.console import Console

from walengine.errors import WalError
from walengine.fsync_bench import plot_data
from walengine.fsync_bench.compare import comparison, comparison_table, read_run
from walengine.fsync_bench.plot_png import write_png
from walengine.fsync_bench.report_csv import COLUMNS, write_csv
from walengine.fsync_bench.report_html import html_of
from walengine.fsync_bench.report_table import NOTHING, renderable
from walengine.fsync_bench.results import run_from_dict
from walengine.fsync_bench.verdict import words_of

HOSTILE = "/data/<script>alert('1')</script>&\"[red]"
VOID = {"meta", "line", "rect", "polyline", "circle", "br"}


class Page(HTMLParser):
    """Checks that tags are closed, and collects what a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.fetched = []
        self.tags = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        names = {"src", "href", "xlink:href", "data", "srcset", "action", "poster", "background"}
        self.fetched += [value for name, value in attrs if name in names]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, _attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def printed(renderable_, width=150):
    console = Console(width=width, file=io.StringIO())
    console.print(renderable_)
    return console.file.getvalue()


# ---- HTML ----------------------------------------------------------------------------------------


def test_the_page_is_whole_and_fetches_nothing():
    run = made_run()
    text = html_of(run, words_of(run))
    page = Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "@import" not in text
    assert "url(" not in text
    assert "script" not in page.tags
    assert text.count("<svg") == 4


def test_the_page_shows_what_was_measured_and_what_it_means():
    run = made_run()
    words = words_of(run)
    text = html_of(run, words)
    for part in ("45,000", "io_uring direct", "WalConfig()", "etcd", "PostgreSQL", "ext4"):
        assert part in text


def test_names_of_directories_are_no_markup():
    run = made_run(place={"directory": HOSTILE})
    words = words_of(run)
    assert "script" not in Page(html_of(run, words)).tags
    assert HOSTILE in printed(renderable(run, words, 300), 300)


def test_doubts_stand_before_the_advice():
    run = made_run({"fdatasync/zero-filled/4096/1": (2, 400_000)})
    words = words_of(run)
    for text in (printed(renderable(run, words, 120), 120), html_of(run, words)):
        assert text.index("settle that before you choose") < text.index("WalConfig(")


def test_a_page_of_nearly_nothing_is_a_page():
    row = figures("fdatasync/zero-filled/4096/1", 100, 9_000, commits=1)
    for results in ([row], [without(made_run(results=[row]), "p50_us", to=None).results[0]]):
        run = made_run(results=results)
        assert Page(html_of(run, words_of(run))).open == []


# ---- the table -----------------------------------------------------------------------------------


def test_what_too_few_samples_carry_is_a_dash():
    run = made_run()
    for field in ("p99_us", "p999_us"):
        run = without(run, field, to=None)
    line = next(line for line in printed(renderable(run, words_of(run), 150)).splitlines()
                if "growing" in line and "4 KiB" in line)  # fmt: skip
    assert line.count(NOTHING) == 2


def test_rows_that_could_not_be_measured_say_why_once():
    run = without(made_run(), "problem", to="this filesystem cannot do it (fallocate)")
    text = printed(renderable(run, words_of(run), 150))
    assert text.count("fdatasync: this filesystem cannot do it (fallocate)") == 1


@pytest.mark.parametrize("width", [80, 100, 120])
def test_every_figure_fits_a_terminal(width):
    """Columns that say less go where there is little room; no number is cut."""
    run = made_run({"O_DIRECT+O_DSYNC/zero-filled/4096/64": (123_456, 123_456)})
    text = printed(renderable(run, words_of(run), width), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert ("p90" in text) == (width >= 100)
    assert text.count("123,456") == 2


def test_the_count_of_every_row_is_shown():
    run = made_run(results=[figures("fdatasync/growing/4096/1", 200, 4_800, commits=1_234_567)])
    assert "1,234,567" in printed(renderable(run, words_of(run), 150))


# ---- files ---------------------------------------------------------------------------------------


def test_csv_has_a_line_for_each_row(tmp_path):
    run = without(made_run(), "p999_us", to=None)
    write_csv(run, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == [result.row.method for result in run.results]
    assert list(lines[0]) == list(COLUMNS)
    assert {line["p999_us"] for line in lines} == {""}
    assert [float(line["p50_us"]) for line in lines] == [result.p50_us for result in run.results]


def test_json_comes_back_as_it_was(tmp_path):
    run = made_run()
    text = json.dumps(run.as_dict() | words_of(run).as_dict())
    assert run_from_dict(json.loads(text)) == run
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    assert read_run(tmp_path / "run.json") == run


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "{}", '{"format": 2}', '{"format": 1}',
     '{"format": 1, "rows": [{"key": "fdatasync/growing/4096/1"}]}', '{"format": 1, "rows": 7}',
     "\udce9"],
)  # fmt: skip
def test_what_is_no_run_is_refused(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WalError, match="other.json: .*walengine bench fsync --json"):
        read_run(path)


def test_rows_of_another_version_are_left_out():
    value = made_run().as_dict()
    value["rows"].append({"key": "telepathy/growing/4096/1"})
    assert run_from_dict(value) == made_run()


@pytest.mark.not_quick
def test_png_is_a_picture(tmp_path):
    needs_package("matplotlib")
    write_png(made_run(), tmp_path / "plots.png")
    assert (tmp_path / "plots.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


# ---- comparison ----------------------------------------------------------------------------------


def test_rows_that_both_have_are_compared():
    other = made_run({"fdatasync/growing/4096/1": (400, 2_400), "no sync/zero-filled/4096/1": None})
    lines = {line["key"]: line for line in comparison(made_run(), other)}
    assert set(lines) == set(FLASH) - {"no sync/zero-filled/4096/1"}
    assert lines["fdatasync/growing/4096/1"]["times_as_fast"] == 2.0
    assert lines["fdatasync/zero-filled/4096/1"]["times_as_fast"] == 1.0


def test_what_lies_within_the_noise_is_alike():
    changed = {"fdatasync/growing/4096/1": (400, 2_400), "fdatasync/recycled/8192/1": (50, 18_000),
               "fdatasync/zero-filled/4096/1": (120, 8_000)}  # fmt: skip
    text = printed(comparison_table(made_run(), made_run(changed), "before.json"))
    assert text.count("2.0 times as fast") == 1
    assert text.count("2.2 times as slow") == 1
    assert text.count("alike") == len(FLASH) - 2


# ---- plots ---------------------------------------------------------------------------------------


def test_one_writers_group_commit_is_that_writer():
    lines = {line.label: line.points for line in plot_data.rates(made_run())}
    one, many = lines["fdatasync, group commit"]
    assert one == pytest.approx((1.0, 9_500.0))
    assert many == pytest.approx((16.0, 45_000.0))


def test_the_tail_falls_from_all_to_none():
    for line in plot_data.tails(made_run()):
        shares = [share for _, share in line.points]
        assert shares == sorted(shares, reverse=True)
        assert shares[-1] == plot_data.SLOWEST_SHARE
