"""What sinks raise by themselves; a destination's own error is passed on as it is.

The tree::

    Exception
    └── SinkError               the sink could not do what was asked
        ├── BackpressureError   the sink is full; the item was not accepted
        └── SinkClosedError     the sink was closed
"""

from __future__ import annotations

__all__ = ["BackpressureError", "SinkClosedError", "SinkError"]


class SinkError(Exception):
    """The sink could not do what was asked; base of the tree."""


class BackpressureError(SinkError):
    """The sink is full and may not, or cannot, write now; the item was not accepted."""


class SinkClosedError(SinkError):
    """The sink was closed: make a new one."""


for _name in __all__:
    globals()[_name].__module__ = "walengine.sinks"
