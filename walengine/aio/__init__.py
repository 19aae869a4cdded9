"""The writer for asyncio."""

from walengine.aio.writer import AsyncWalWriter

__all__ = ["AsyncWalWriter"]
