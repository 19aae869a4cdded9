"""Two S3 servers on loopback: moto in this process, SeaweedFS as a program of its own."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from walengine.buffer import ObjectStoreConfig

HOST = "127.0.0.1"
BUCKET = "conformance"
START_SECONDS_MAX = 60


def bucket(endpoint: str, name: str = BUCKET) -> ObjectStoreConfig:
    return ObjectStoreConfig.Aws(
        "us-east-1", name, endpoint=endpoint, allow_http=True,
        access_key_id="id", secret_access_key="secret",
    )  # fmt: skip


def make_bucket(endpoint: str, name: str = BUCKET) -> None:
    """Make it by the plain request: neither server asks who is there."""
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """Run moto's server in a thread; yields its URL."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 (two seconds that few tests need)

    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        make_bucket(endpoint)
        yield endpoint
    finally:
        server.stop()


@contextlib.contextmanager
def seaweedfs(directory: Path, *, volumes: int = 16) -> Iterator[str]:
    """Run a SeaweedFS with its data in a directory; yields its URL. It ends by SIGKILL.

    volumes: Of 64 MiB each; what was overwritten or deleted takes room there too.
    """
    server, endpoint = _start(directory, volumes)
    try:
        _wait(server, endpoint, directory / "log")
        yield endpoint
    finally:
        server.kill()  # on SIGTERM it hangs
        server.wait()


def _start(directory: Path, volumes: int) -> tuple[subprocess.Popen[bytes], str]:
    names = ("master", "volume", "filer", "s3")
    ports = _free_ports(2 * len(names))
    services = []
    for i, name in enumerate(names):
        services += [f"-{name}.port={ports[2 * i]}", f"-{name}.port.grpc={ports[2 * i + 1]}"]
    # If these tests are killed, so is the server.
    setpriv = shutil.which("setpriv")
    leash = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *leash, Path(sys.executable).parent / "weed", "server", f"-dir={directory}",
                f"-ip={HOST}", f"-ip.bind={HOST}", "-s3", "-s3.iam=false",
                "-s3.port.iceberg=0", "-s3.port.lance=0",
                "-master.volumeSizeLimitMB=64", f"-volume.max={volumes}", "-master.telemetry=false",
                *services,
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    return server, f"http://{HOST}:{ports[-2]}"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(server: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    """Wait until a bucket can be made and an object written into it."""
    limit = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            make_bucket(endpoint)
            body = urllib.request.Request(f"{endpoint}/{BUCKET}/ready", b"1", method="PUT")
            urllib.request.urlopen(body, timeout=10).close()
        except OSError as error:
            if server.poll() is not None or time.monotonic() > limit:
                tail = log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"SeaweedFS does not serve: {error}\n{tail}") from error
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            time.sleep(0.05)
        else:
            return
