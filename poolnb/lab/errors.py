"""Errors that the caller can put right, and how a value is shown in their texts."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """Something the caller can put right. Its text is the whole message: no traceback is needed to understand it."""


class ConfigError(UserError, ValueError):
    """A parameter that is unknown or has a value that is not accepted."""


def shown(value: Any) -> str:
    """`value` for a message of one line: of a long one the beginning."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number with thousands of digits
        return f"too long ({type(value).__name__})"
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"
