"""What one process was last told: by that it is judged whether it may do what it asks for."""

from __future__ import annotations

from simulation import decoder

NAME_AGE_MAX_MS = 121_000
"""Two minutes, and a second for the clocks' grain."""


class Mind:
    """What one process was last told of the manifest and of the listing, for B5 and B6."""

    def __init__(self):
        self.next_sequence = 0
        self.epoch = 0
        self.known = None  # the version it read last, or None: absent
        self.read_since = False  # the last listing
        self.listed_at_ms = None
        self.infos = {}
        self.first_epoch = None  # of the manifest before the listing
        self.put_ms = {}  # location -> when it was last sent, by the true time

    def begin_pass(self):
        self.first_epoch = self.known.epoch if self.known else None

    def read(self, result):
        if result is None:
            self.known, self.read_since = None, True
        elif hasattr(result, "data"):
            self.saw(decoder.manifest(result.data))
            self.read_since = True
        elif not isinstance(result, Exception):
            self.read_since = True  # not modified

    def saw(self, version):
        # Of answers that overlapped, the older one may come last.
        if self.known is None or not _is_before(version, self.known):
            self.known = version
        self.next_sequence = max(self.next_sequence, version.next_sequence)
        self.epoch = max(self.epoch, version.epoch)

    def old_names(self, data, now_ms):
        """Yield what this process is about to list though its name is too old, and its age."""
        listed = {entry.location for entry in self.known.entries} if self.known else set()
        for entry in decoder.manifest(data).entries:
            if entry.location in self.put_ms and entry.location not in listed:
                # As a collector would reckon it: the later of the name's time and the store's.
                known_ms = max(self.put_ms[entry.location], decoder.name_ms(entry.location))
                if now_ms - known_ms > NAME_AGE_MAX_MS:
                    yield entry.location, now_ms - known_ms

    def problems(self, name, epoch, grace_ms):
        """Say why this process had to leave this object alone."""
        info, known = self.infos.get(name), self.known
        if info is None:
            yield "it was not in the listing"
            return
        name_ms = decoder.name_ms(name)
        if self.listed_at_ms - info.last_modified_ms < grace_ms:
            yield "it was modified within the grace period"
        if self.listed_at_ms - name_ms < grace_ms:
            yield "its name is from within the grace period"
        if not self.read_since:
            yield "the manifest was not read after the listing"
        if known is None or known.next_sequence == 0:
            yield "the manifest is missing, or has never listed a batch"
            return
        expected = epoch or self.first_epoch
        if known.epoch != expected:
            yield f"the manifest has epoch {known.epoch}, not {expected}"
        if any(entry.location == name for entry in known.entries):
            yield "the manifest lists it"
        oldest = min((decoder.name_ms(entry.location) for entry in known.entries), default=None)
        if oldest is not None and name_ms >= oldest:
            yield "a listed batch is older"


def _is_before(version, known):
    """Whether something of it is less: the end of the queue, its epoch or its beginning."""

    def positions(manifest):
        return (manifest.next_sequence, manifest.epoch,
                manifest.next_sequence - len(manifest.entries))  # fmt: skip

    pairs = zip(positions(version), positions(known), strict=True)
    return any(mine < theirs for mine, theirs in pairs)
