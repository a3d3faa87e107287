"""The spread of a window in NumPy."""

from __future__ import annotations

__all__: list[str] = []
