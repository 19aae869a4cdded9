"""The descriptor that C raises and the event loop watches."""

from __future__ import annotations

import contextlib
import os


class Bell:
    """An eventfd; a pipe where the system has none.

    Attributes:
        fd: Becomes readable when it rings.
        ring_fd: What C writes to.
    """

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.ring_fd = self.fd
        else:
            self.fd, self.ring_fd = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self.ring_fd, False)

    def hush(self) -> None:
        """Stop ringing; what rings from here on is news."""
        with contextlib.suppress(BlockingIOError):  # it rang for what was seen meanwhile
            os.read(self.fd, 4096)

    def close(self) -> None:
        """Give the descriptors back; C must have been told before."""
        fd, ring_fd = self.fd, self.ring_fd
        self.fd = self.ring_fd = -1
        if fd >= 0:
            os.close(fd)
        if ring_fd not in {fd, -1}:
            os.close(ring_fd)
