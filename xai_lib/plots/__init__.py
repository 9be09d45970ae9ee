"""Figures: each function takes a result and returns a matplotlib Figure."""

from .agreement_curves import agreement_curves
from .class_recalls import class_recalls
from .clip import clip
from .contrast_map import contrast_map
from .courses import courses
from .deletion_pairs import deletion_pairs
from .description_check import description_check
from .differences import differences
from .emotion_tracking import emotion_tracking
from .factors import factors
from .forgetting import forgetting
from .frame_attribution import frame_attribution
from .layer_curves import layer_curves
from .layer_effect import layer_effect
from .layer_neuron_map import layer_neuron_map
from .layer_probes import layer_probes
from .neuron_card import neuron_card
from .neuron_groups import neuron_groups
from .proxy_changes import proxy_changes
from .recognition import recognition
from .segment_map import segment_map
from .selective_neurons import selective_neurons
from .selectivity_scatter import selectivity_scatter
from .spread import spread
