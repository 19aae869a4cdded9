"""The garbage collector: deletes batch objects that no manifest lists or will list."""

from walengine.buffer.collector.collection import Collection, collect_garbage

__all__ = ["Collection", "collect_garbage"]
