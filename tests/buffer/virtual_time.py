"""An event loop whose clock jumps to the next timer: minutes of timeouts in no time at all.

Nothing may run in threads under it: it takes a loop with nothing to do and no timer for a hang.
"""

import asyncio
import selectors


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Attributes: now_s, what its clock shows."""

    def __init__(self):
        super().__init__(_Jumping(self))
        self.now_s = 5000.0

    def time(self):
        return self.now_s


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing to do, and no timer: a hang"
            # A little more than asked for, as a clock has it; else rounding makes a loop spin.
            self._loop.now_s += timeout and timeout + 1e-9
        return ready


def run(coroutine):
    """Run it on such a loop, which must end with nothing left over."""

    async def alone():
        result = await coroutine
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"still running: {left}"
        return result

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(alone())
