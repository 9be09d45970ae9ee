"""Explorers for JupyterLab: controls around computations that live elsewhere in the library."""

from __future__ import annotations

from .panel import Panel

__all__ = ["Panel"]
from .clip_explorer import ClipExplorer

__all__ += ["ClipExplorer"]
