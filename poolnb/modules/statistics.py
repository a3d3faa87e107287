"""Statistics of a window, as modules."""

from __future__ import annotations

__all__: list[str] = []
