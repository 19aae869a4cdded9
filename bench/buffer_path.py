"""Measure the buffer from produce() to the consumer: ``make bench-buffer``.

Producer and consumer are processes of their own on one store: a directory of the disk under test,
and SeaweedFS on loopback where it is installed. Entries of 1 KiB of random bytes, 1,000 a call for
throughput and 10 a call for latency; the defaults of the configuration but for what a row names.
Beside the throughput stands what the disk allows: one process that writes files of the same size
and syncs each, by turns with it.

What is printed is the median over the rounds with the smallest and the largest. Everything that is
written is removed again. README.md has the method.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import buffer_codecs
import buffer_plots
from machine import describe, filesystem_of
from percentiles import cdf_us, latencies_us, spread, text_of
from report import print_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
BUILT = ROOT / "build" / "bench"
WORKER = ROOT / "bench" / "buffer_worker.py"
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")

ENTRY_BYTES = 1024
TARGET_ENTRIES_S = 175_000
ROUNDS = 5
SECONDS = 5.0
PRODUCERS = (1, 2, 4, 8)
INTERVALS_MS = (100, 10)
CALLS = 1500
CALL_INTERVAL_S = 0.01
POLL_INTERVAL_S = 0.005
DISK_BYTES = 8 << 20
FLUSH_SIZES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "batches of 8 MiB": {"flush_size_bytes": DISK_BYTES},
}
PROCESSOR = ("producer user", "producer system", "consumer user", "consumer system")
VOLUMES = 400  # of 64 MiB in SeaweedFS, which gives nothing back during a run
FREE_BYTES_MIN = 12 * 10**9

Row = dict[str, Any]
Store = dict[str, Any]
MakeStore = Callable[[], "contextlib.AbstractContextManager[Store]"]


def main() -> int:
    """Measure, print, draw, write JSON; 1 if the target was missed."""
    options = parse()
    command = shlex.join(["python", *sys.argv])
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(
        prefix="walengine-bench-", dir=options.dir, ignore_cleanup_errors=True
    ) as scratch:
        facts = describe(options.dir, command)
        rows = list(measure(Path(scratch), options))
    facts["load_after"] = os.getloadavg()[0]
    facts["seconds"] = round(time.monotonic() - begin)
    facts["taken_at"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    results = {"setting": facts, "rows": rows}
    show(results)
    default = (RESULTS if options.store else BUILT) / "buffer.json"
    written = options.json or default
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written: {written}")
    for picture in buffer_plots.draw(written):
        print(f"written: {picture}")
    return 0


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="a directory on the disk")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"default: {SECONDS:g}")
    parser.add_argument("--only", metavar="GROUP", choices=[*GROUPS], action="append")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: build/bench")
    parser.add_argument("--store", action="store_true", help="keep the results in bench/results")
    parser.add_argument("--tiny", action="store_true", help="see that everything runs")
    options = parser.parse_args()
    if options.store and (options.tiny or options.only):
        parser.error("--store takes whole runs only")
    if (kind := filesystem_of(options.dir)) in IN_MEMORY:
        parser.error(f"{options.dir} is on {kind}: give a directory on a disk with --dir")
    if shutil.disk_usage(options.dir).free < FREE_BYTES_MIN and not options.tiny:
        parser.error(f"{options.dir} needs {FREE_BYTES_MIN // 10**9} GB free")
    if options.tiny:
        options.rounds, options.seconds = 1, 0.3
    return options


def measure(scratch: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of all groups on all stores."""
    chosen = options.only or list(GROUPS)
    for name, make_store in stores(scratch).items():
        with make_store() as endpoint:
            for group in chosen:
                if name == "local" or group in ON_S3:
                    print(f"{name}: {group}", file=sys.stderr, flush=True)
                    yield from GROUPS[group](Place(name, scratch, endpoint), options)


# ---- stores --------------------------------------------------------------------------------------


class Place:
    """Where a row is measured.

    Args:
        name: Of the kind of store.
        scratch: A directory on the disk under test.
        endpoint: Of the S3 server; None: the store is a directory.
    """

    def __init__(self, name: str, scratch: Path, endpoint: str | None) -> None:
        self.name = name
        self._scratch = scratch
        self._endpoint = endpoint
        self._made = 0

    @contextlib.contextmanager
    def queue(self) -> Iterator[dict[str, Any]]:
        """Yield what configurations of a fresh queue have in common; it is removed behind."""
        self._made += 1
        directory = Path(tempfile.mkdtemp(dir=self._scratch))
        store: Store = {"type": "Local", "path": str(directory)}
        prefix = f"queue{self._made}-{time.monotonic_ns()}"
        if self._endpoint is not None:
            store = {
                "type": "Aws", "region": "us-east-1", "bucket": "conformance", "allow_http": True,
                "endpoint": self._endpoint, "access_key_id": "id", "secret_access_key": "secret",
            }  # fmt: skip
        try:
            yield {
                "object_store": store,
                "data_path_prefix": prefix,
                "manifest_path": f"{prefix}/manifest",
            }
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """Yield a directory on the same disk."""
        directory = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def stores(scratch: Path) -> dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]:
    """Return what can be measured on here: by name, what starts it and yields its endpoint."""
    found: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
        "local": lambda: contextlib.nullcontext(None)
    }
    if (Path(sys.executable).parent / "weed").exists():
        sys.path.append(str(ROOT / "tests" / "buffer"))
        import servers  # noqa: PLC0415 (the tests' own, where SeaweedFS is installed)

        data = scratch / "seaweedfs"
        data.mkdir()
        found["seaweedfs"] = lambda: servers.seaweedfs(data, volumes=VOLUMES)
    else:
        print("seaweedfs: not installed, left out (the group test has it)", file=sys.stderr)
    return found


# ---- groups --------------------------------------------------------------------------------------


def throughput(place: Place, options: argparse.Namespace) -> Iterator[Row]:
    """How many entries a second go from produce() to the consumer."""
    taken: dict[str, list[Row]] = {name: [] for name in FLUSH_SIZES}
    disk: list[float] = []
    for _ in range(options.rounds):
        for name, settings in FLUSH_SIZES.items():
            taken[name].append(one_run(place, settings, options.seconds))
        if place.name == "local":
            with place.directory() as directory:
                size = {"directory": str(directory), "batch_bytes": DISK_BYTES,
                        "seconds": options.seconds / 2}  # fmt: skip
                (written,) = together(start("write_files", size))
            disk.append(written["bytes"] / ENTRY_BYTES / written["took_ns"] * 1e9)
    for name, runs in taken.items():
        rates = [each["rate"] for each in runs]
        figures = {key: spread([each[key] for each in runs]) for key in PROCESSOR}
        yield row("throughput", place.name, f"through the queue, {name}", rates, "entries/s",
                  mb_s=megabytes(rates), cpu_ns=figures,
                  batch_bytes=spread([each["batch_bytes"] for each in runs]))  # fmt: skip
    if disk:
        yield row("throughput", place.name, "files of 8 MiB, each synced", disk, "entries/s",
                  mb_s=megabytes(disk))  # fmt: skip


def one_run(place: Place, settings: dict[str, Any], seconds: float) -> Row:
    """Produce for some seconds and consume all of it; return the figures of this run."""
    with place.queue() as config:
        consumer = start("consume", consuming(config, prefetch=2))
        producer = start("produce_fast", {
            "config": {**config, **settings}, "entries": 1000, "entry_bytes": ENTRY_BYTES,
            "seconds": seconds,
        })  # fmt: skip
        consumed, produced = together(consumer, producer)
    count = consumed["entries"]
    if count != produced["entries"]:
        raise SystemExit(f"{produced['entries']} produced, {count} consumed")
    return {
        "rate": count / (consumed["end_ns"] - produced["begin_ns"]) * 1e9,
        "batch_bytes": consumed["bytes"] / consumed["batches"],
        **{
            f"{role} {part}": result[f"{part}_s"] / count * 1e9
            for role, result in (("producer", produced), ("consumer", consumed))
            for part in ("user", "system")
        },
    }


def megabytes(rates: list[float]) -> dict[str, float]:
    """Return entries a second as MB/s."""
    return spread([rate * ENTRY_BYTES / 1e6 for rate in rates])


def latency(place: Place, options: argparse.Namespace) -> Iterator[Row]:
    """How long a call's entries take until they are durable, and until they are consumed."""
    calls = 120 if options.tiny else CALLS
    for interval_ms in INTERVALS_MS:
        with place.queue() as config:
            consumer = start("consume", consuming(config, prefetch=8))
            producer = start("produce_paced", {
                "config": {**config, "flush_interval": interval_ms}, "entries": 10,
                "entry_bytes": ENTRY_BYTES, "calls": calls, "interval_s": CALL_INTERVAL_S,
            })  # fmt: skip
            consumed, produced = together(consumer, producer)
        for what, took in (("durable", produced["took_ns"]), ("consumed", consumed["took_ns"])):
            yield row("latency", place.name, f"produce to {what}",
                      [each / 1e6 for each in sorted(took)][len(took) // 2 :][:1], "ms",
                      flush_interval_ms=interval_ms, latency_us=latencies_us(took),
                      samples=len(took), cdf_us=cdf_us(took))  # fmt: skip


def swaps(place: Place, options: argparse.Namespace) -> Iterator[Row]:
    """How many appends a second one manifest takes, and how many are lost to others."""
    for count in PRODUCERS:
        done: list[float] = []
        rates: list[float] = []
        batches: list[float] = []
        for _ in range(options.rounds):
            with place.queue() as config:
                settings = {"config": {**config, "flush_size_bytes": 1}, "entry_bytes": 100,
                            "seconds": options.seconds / 2}  # fmt: skip
                results = together(*(start("swap", settings) for _ in range(count)))
            seconds = max(each["took_ns"] for each in results) / 1e9
            total, lost = (sum(each[key] for each in results) for key in ("swaps", "conflicts"))
            done.append((total - lost) / seconds)
            rates.append(100 * lost / max(1, total))
            batches.append(sum(each["batches"] for each in results) / seconds)
        yield row("swaps", place.name, f"{count} producers", done, "swaps/s", producers=count,
                  conflict_percent=spread(rates), batches_s=spread(batches))  # fmt: skip


def codecs(place: Place, options: argparse.Namespace) -> Iterator[Row]:  # noqa: ARG001
    """Encode and decode a batch of 1 KiB entries; bench/buffer_codecs.py has all sizes."""
    title, smallest, largest, count = buffer_codecs.BATCHES[1]
    if options.tiny:
        count = 1000
    family = buffer_codecs.batch_work(title, smallest, largest, count)
    total_bytes = {work.name: work.total_bytes / work.count for work in family}
    for figure in buffer_codecs.measure(family, options.rounds):
        values = [total_bytes[figure["what"]] / ns for ns in figure["samples"]]
        yield row("codecs", "memory", figure["what"], values, "GB/s")


GROUPS: dict[str, Callable[[Place, argparse.Namespace], Iterator[Row]]] = {
    "throughput": throughput,
    "latency": latency,
    "swaps": swaps,
    "codecs": codecs,
}
ON_S3 = ("throughput", "latency", "swaps")


def row(group: str, store: str, what: str, values: list[float], unit: str, **more: Any) -> Row:
    """Return a row of the results."""
    return {
        "group": group, "store": store, "contender": what, "values": values, "unit": unit,
        "rounds": len(values), **spread(values), **more,
    }  # fmt: skip


# ---- processes -----------------------------------------------------------------------------------


def consuming(config: dict[str, Any], *, prefetch: int) -> dict[str, Any]:
    """Return the settings of a consumer."""
    return {"config": config, "prefetch": prefetch, "poll_interval_s": POLL_INTERVAL_S}


def start(role: str, settings: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a worker."""
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), role],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stdin is not None  # noqa: S101 (it was asked for)
    worker.stdin.write(json.dumps(settings) + "\n")
    worker.stdin.flush()
    return worker


def together(*workers: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Begin with all of them at once; return what each has to tell."""
    try:
        for worker in workers:
            assert worker.stdout is not None  # noqa: S101
            if worker.stdout.readline() != "ready\n":
                raise SystemExit("a worker did not get ready; its error stands above")
        for worker in workers:
            assert worker.stdin is not None  # noqa: S101
            worker.stdin.write("go\n")
            worker.stdin.flush()
        told = [worker.communicate()[0] for worker in workers]
        if not all(told):
            raise SystemExit("a worker failed; its error stands above")
        return [json.loads(each) for each in told]
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()


# ---- what is shown -------------------------------------------------------------------------------


def show(results: dict[str, Any]) -> None:
    """Print everything."""
    for name, value in results["setting"].items():
        print(f"{name:<16} {value}")
    lines = [["group", "store", "what", "median (smallest-largest)", "more"]]
    lines += [
        [each["group"], each["store"], each["contender"], f"{text_of(each)} {each['unit']}",
         more(each)]
        for each in results["rows"]
    ]  # fmt: skip
    print()
    print_table(lines)
    for each in results["rows"]:
        if "queue" in each["contender"] and each["store"] == "local":
            verdict = "met" if each["median"] >= TARGET_ENTRIES_S else "MISSED"
            print(f"target: {TARGET_ENTRIES_S:,} entries/s {each['contender']}: {verdict}")


def more(each: Row) -> str:
    """Return what else a row has to tell."""
    if each["group"] == "throughput" and "cpu_ns" in each:
        cpu = ", ".join(f"{n} {v['median']:,.0f} ns" for n, v in each["cpu_ns"].items())
        size = each["batch_bytes"]["median"] / 2**20
        return (
            f"{each['mb_s']['median']:,.0f} MB/s; processor an entry: {cpu}; {size:.1f} MiB batches"
        )
    if each["group"] == "throughput":
        return f"{each['mb_s']['median']:,.0f} MB/s"
    if each["group"] == "latency":
        shown = ", ".join(f"{name} {us / 1000:,.1f} ms" for name, us in each["latency_us"].items())
        return f"flush_interval {each['flush_interval_ms']} ms: {shown} ({each['samples']:,} calls)"
    if each["group"] == "swaps":
        rate, batches = each["conflict_percent"]["median"], each["batches_s"]["median"]
        return f"{rate:.0f} % conflicts; {batches:,.0f} batches/s"
    return ""


if __name__ == "__main__":
    sys.exit(main())
