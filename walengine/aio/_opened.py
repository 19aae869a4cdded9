"""Opening the C side of an asyncio writer: the log, and a bell that C agrees to ring."""

from __future__ import annotations

import dataclasses
import logging

from walengine._native_poll import PolledWriter
from walengine._native_ring import BackendInfo
from walengine._native_writer import NativeWriter
from walengine._opening import open_native
from walengine.aio._bell import Bell
from walengine.config import WalConfig
from walengine.errors import WalError
from walengine.types import RecoveryReport

log = logging.getLogger("walengine")


@dataclasses.dataclass(frozen=True)
class Opened:
    """A log that is open.

    Attributes:
        native: The C writer.
        polled: Its calls for the loop.
        bell: What C rings.
        in_use: The backend.
        report: What recovery found.
    """

    native: NativeWriter
    polled: PolledWriter
    bell: Bell
    in_use: BackendInfo
    report: RecoveryReport

    def unhook(self) -> None:
        """Have C forget the bell, and only then give its descriptor back."""
        if self.bell.fd < 0:
            return
        try:
            self.polled.notify(-1)
        except WalError as error:
            log.debug("the bell: %s", error)
        self.bell.close()


def open_polled(path: str, config: WalConfig) -> Opened:
    """Open the log at path; blocks.

    Where the kernel does not tell a descriptor about a ring, "auto" comes to pwrite.
    """
    try:
        return _open(path, config)
    except _Untold as error:
        if config.backend == "io_uring":
            raise error.problem from None
        log.warning("%s; using pwrite", error.problem)
        return _open(path, dataclasses.replace(config, backend="pwrite"))


class _Untold(Exception):  # noqa: N818 (never seen outside)
    """C cannot ring the bell for this ring."""

    def __init__(self, problem: WalError) -> None:
        self.problem = problem


def _open(path: str, config: WalConfig) -> Opened:
    native, in_use, report = open_native(path, config)
    polled = PolledWriter(path, native)
    bell = Bell()
    try:
        polled.notify(bell.ring_fd)
    except WalError as error:
        bell.close()
        native.close()
        raise _Untold(error) from None
    return Opened(native, polled, bell, in_use, report)
