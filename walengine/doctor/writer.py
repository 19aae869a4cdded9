"""What a writer with the default configuration would really use here."""

from __future__ import annotations

from walengine.backend import IoUringStatus, ring_name
from walengine.config import WalConfig
from walengine.doctor.findings import Finding, Findings
from walengine.doctor.mounts import SYNCS_DIRECT, Mount
from walengine.doctor.trial import Trial


def examine(
    status: IoUringStatus, mount: Mount | None, trial: Trial, config: WalConfig
) -> list[Finding]:
    """Put together what the ring and the directory came to.

    Args:
        status: What io_uring_status() found.
        mount: Where the directory lies; None: nobody knows.
        trial: What the directory can do.
        config: The default one, with the environment's overrides.
    """
    say = Findings("writer")
    rings = config.backend != "pwrite" and status.available
    backend = "io_uring" if rings else "pwrite"
    buffers = status.registered_buffers if rings else 0
    direct = trial.direct and (mount is None or mount.kind in SYNCS_DIRECT)
    facts = {
        "backend": backend,
        "ring": status.ring if rings else None,
        "ring_version": status.ring_version if rings else None,
        "registered_buffers": buffers,
        "direct_io_possible": direct,
        "asked_backend": config.backend,
    }
    if config.backend == "io_uring" and not rings:
        say.problem(
            "backend",
            "WALENGINE_BACKEND=io_uring asks for io_uring alone, and it does not work here",
            "take the variable away, or see what blocks io_uring above",
            **facts,
        )
        return say.made
    parts = ["through the page cache"]
    if rings:
        driver = ring_name(status.ring, status.ring_version)
        parts.append(f"{buffers} registered buffers" if buffers else "plain buffers")
        text = f"a writer with the defaults uses io_uring ({driver}), {', '.join(parts)}"
    else:
        why = " as WALENGINE_BACKEND asks" if config.backend == "pwrite" else ""
        text = f"a writer with the defaults uses pwrite and fdatasync{why}, {parts[0]}"
    possible = "direct_io=True would be direct" if direct else "direct_io=True would not be"
    if trial.create_error is not None:
        possible = "direct_io=True was not tried, since no file can be made"
    say.ok("backend", f"{text}; {possible}", **facts)
    return say.made
