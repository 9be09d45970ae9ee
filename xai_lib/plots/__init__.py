"""Figures: each function takes a result and returns a matplotlib Figure."""

from __future__ import annotations
from .clip import clip
from .confusion import confusion
from .differences import differences
from .factors import factors
from .recall import recall
from .shares import shares
