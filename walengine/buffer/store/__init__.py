"""Object stores: one narrow port, and what stands behind it."""

from walengine.buffer.store.port import (
    NAME_BYTES_MAX,
    NOT_MODIFIED,
    Data,
    NotModified,
    ObjectInfo,
    ObjectStore,
    StoredObject,
    check_name,
    check_prefix,
)

__all__ = [
    "NAME_BYTES_MAX",
    "NOT_MODIFIED",
    "Data",
    "NotModified",
    "ObjectInfo",
    "ObjectStore",
    "StoredObject",
    "check_name",
    "check_prefix",
]
