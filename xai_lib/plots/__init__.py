"""Figures: each function takes a result and returns a matplotlib Figure."""

from __future__ import annotations
from .clip import clip
from .recognition import recognition
from .differences import differences
from .factors import factors
from .agreement_curves import agreement_curves
from .deletion_pairs import deletion_pairs
from .frame_attribution import frame_attribution
from .layer_neuron_map import layer_neuron_map
from .neuron_profile import neuron_profile
from .segment_map import segment_map
from .class_recalls import class_recalls
from .description_check import description_check
from .forgetting import forgetting
from .neuron_card import neuron_card
from .selective_neurons import selective_neurons
from .emotion_tracking import emotion_tracking
from .layer_curves import layer_curves
from .layer_effect import layer_effect
from .proxy_changes import proxy_changes
from .spread import spread
