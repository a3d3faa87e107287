"""Statistics of a window: what its spread says beside its mean."""

from __future__ import annotations

__all__: list[str] = []
