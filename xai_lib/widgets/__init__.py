"""Explorers for JupyterLab: controls around computations that live elsewhere in the library."""

from __future__ import annotations

from .panel import Panel

__all__ = ["Panel"]
from .clip_explorer import ClipExplorer

__all__ += ["ClipExplorer"]
from .frame_explorer import FrameExplorer
from .neuron_explorer import NeuronExplorer

__all__ += ["FrameExplorer", "NeuronExplorer"]
from .neuron_card import NeuronCard, players
from .pruning_explorer import PruningExplorer

__all__ += ["NeuronCard", "PruningExplorer", "players"]
from .ablation_explorer import AblationExplorer

__all__ += ["AblationExplorer"]
