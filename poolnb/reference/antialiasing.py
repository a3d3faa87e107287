"""Pooling that filters before it subsamples, in NumPy."""

from __future__ import annotations

__all__: list[str] = []
