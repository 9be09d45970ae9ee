from __future__ import annotations

import ipywidgets
import numpy as np

from .. import attribution, plots
from .panel import Panel


class NeuronExplorer(Panel):
    """Neurons of any layer by rank: how strongly each drives the target, and what drives the neuron.

    Parameters
    ----------
    scores : Dataset [clip, layer, neuron]
        From `attribution.grad_x_activation`.
    response : DataArray [clip, segment, layer, neuron]
        From `attribution.segment_response`, of the same layers.
    layer : int, optional
        Where to start; the last one unless told.
    """

    def __init__(self, scores, response, *, layer=None, **options):
        self.scores, self.response = scores, response
        layers = scores["layer"].values.tolist()
        clips = [(f"clip {clip}", place) for place, clip in enumerate(response["clip"].values)]
        controls = {
            "layer": ipywidgets.SelectionSlider(options=layers, value=layers[-1] if layer is None else layer),
            "rank": ipywidgets.IntSlider(1, 1, scores.sizes["neuron"]),
            "by": ipywidgets.Dropdown(options=["absolute", "signed"]),
            "clip": ipywidgets.Dropdown(options=clips, value=0),
        }
        super().__init__("Neurons by rank", controls, **options)

    def draw(self, layer, rank, by, clip):
        mean = attribution.mean_score(self.scores, by=by).sel(layer=layer).values
        neuron = int(np.argsort(-mean, kind="stable")[rank - 1])
        return plots.neuron_profile(self.scores, self.response.isel(clip=clip), layer, neuron, by=by)
