"""Figures: each function takes a result and returns a matplotlib Figure.

The figure of one panel takes `ax` too, matplotlib Axes: it is then drawn into these, with its legend inside or beside
them, no new figure is made, and the Figure that they belong to is returned. Figures of several panels are always new.
"""

from .ablation import dose_response, emotion_tracking, layer_curves, layer_effect, mode_comparison
from .attribution import (
    agreement_curves,
    contrast_map,
    deletion_pairs,
    frame_attribution,
    layer_neuron_map,
    neuron_groups,
    segment_map,
)
from .corpus import clip, differences, factors, over_time, recognition
from .dissection import description_check, neuron_card, selective_neurons
from .downstream import distance, effect_map, proxy_changes, readout_map, relative_change, upstream
from .open_concepts import adjective_check, adjectives, adjectives_by_layer, uninterpretable
from .probing import courses, layer_probes, selectivity_scatter
from .pruning import class_changes, class_recalls, forgetting, frontier, importance_curves
