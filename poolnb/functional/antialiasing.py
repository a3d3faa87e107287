"""Pooling that filters before it subsamples."""

from __future__ import annotations

__all__: list[str] = []
