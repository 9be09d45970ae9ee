"""Explorers for JupyterLab: controls around computations from elsewhere in the library."""

from .ablation_explorer import AblationExplorer
from .clip_explorer import ClipExplorer
from .frame_explorer import FrameExplorer
from .neuron_card import NeuronCard, players
from .neuron_explorer import NeuronExplorer
from .panel import Panel
from .pruning_explorer import PruningExplorer
