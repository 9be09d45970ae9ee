"""Checks of arguments that many functions share."""

from __future__ import annotations

import numpy as np


def require_whole_number(name: str, value: int, *, least: int = 1) -> None:
    """Raise ValueError, with the name of the argument, for anything but a whole number of at least `least`."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise ValueError(f"{name} must be a whole number from {least} up, not {value!r}")
