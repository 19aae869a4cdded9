"""Eager tasks on every Python: asyncio.eager_task_factory came with 3.12."""

import asyncio
import functools
import types


@types.coroutine
def resumed(coroutine, waits_for):
    """Be the rest of a coroutine whose first step was done, and waits for this."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as error:  # noqa: BLE001 (the coroutine's own to deal with)
            step = functools.partial(coroutine.throw, error)
        else:
            step = functools.partial(coroutine.send, sent)
        try:
            waits_for = step()
        except StopIteration as end:
            return end.value


def eager_task(loop, coroutine, **_):
    """Do the first step at once, as the eager task factory does."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration as end:
        done = loop.create_future()
        done.set_result(end.value)
        return done
    return asyncio.Task(resumed(coroutine, waits_for), loop=loop)


def run_eagerly(coroutine):
    """Run it on a loop whose tasks begin at once; what fails beside it fails the test."""
    failures = []

    async def body():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory", eager_task))
        loop.set_exception_handler(lambda _, context: failures.append(context))
        return await coroutine

    result = asyncio.run(body())
    assert failures == []
    return result
