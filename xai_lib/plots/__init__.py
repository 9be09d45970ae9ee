"""Figures: each function takes a result and returns a matplotlib Figure."""

from __future__ import annotations
