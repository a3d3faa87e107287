"""Pooling that filters before it subsamples, as modules."""

from __future__ import annotations

__all__: list[str] = []
