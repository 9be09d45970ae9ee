from __future__ import annotations

import ipywidgets
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import attribution, results
from ..plots import style
from .panel import Panel

_BARS = 20


class NeuronExplorer(Panel):
    """Explorer of neurons by rank within a layer: how strongly each drives the target, and what drives the neuron.

    Left: the highest mean scores of the layer, each speaker (or clip, where speakers are not known) a dot, the neuron
    in colour. Right: its response to the segments of one clip. `scores` is as returned by
    `attribution.grad_x_activation`, `response` as returned by `attribution.segment_response`, for the same layers.
    `layer` is shown first (default: the last one).
    """

    def __init__(self, scores: xr.Dataset, response: xr.DataArray, *, layer: int | None = None):
        self.scores = scores
        self.response = response
        layers = scores["layer"].values.tolist()
        if layer is None:
            layer = layers[-1]
        clips = [(f"clip {clip}", position) for position, clip in enumerate(response["clip"].values)]
        controls = {
            "layer": ipywidgets.SelectionSlider(options=layers, value=layer),
            "rank": ipywidgets.IntSlider(1, 1, scores.sizes["neuron"]),
            "by": ipywidgets.Dropdown(options=["signed", "absolute"]),
            "clip": ipywidgets.Dropdown(options=clips, value=0),
        }
        super().__init__("Neurons by rank", controls)

    def draw(self, layer: int, rank: int, by: str, clip: int) -> Figure:
        """Return the figure of the neuron of this rank in a layer."""
        n_neurons = self.scores.sizes["neuron"]
        order = attribution.top_neurons(self.scores, n_neurons, by=by, layer=layer)["neuron"].to_numpy()
        neuron = order[rank - 1]
        figure, (score_axes, response_axes) = style.panels(1, 2, height=3.2, width_ratios=[3, 2])
        self._draw_scores(score_axes, layer, order, rank, by)
        score_axes.set_title(f"Layer {layer}: neuron {neuron} is number {rank} of {n_neurons}")
        response = self.response.isel(clip=clip).dropna("segment", how="all")
        self._draw_response(response_axes, response.sel(layer=layer, neuron=neuron))
        return figure

    def _draw_scores(self, axes, layer, order, rank, by):
        """Draw the highest mean scores of a layer, and the score of each speaker, with one neuron in colour."""
        neuron = order[rank - 1]
        bar_neurons = order[:_BARS]
        if rank > _BARS:
            bar_neurons = [*order[: _BARS - 1], neuron]
        units = results.units(self.scores[by]).sel(layer=layer, neuron=bar_neurons)
        values = units.transpose(..., "neuron").values
        positions = range(len(bar_neurons))
        colors = [style.EMOTION_COLORS["angry"] if n == neuron else "#B8C4CE" for n in bar_neurons]
        axes.bar(positions, values.mean(axis=0), color=colors)
        axes.plot(values.T, ".", ms=4, color="black", alpha=0.4, mew=0)
        axes.set_xticks(positions, bar_neurons, rotation=90, fontsize=8)
        axes.set(xlabel="neuron", ylabel=f"{by} attribution ({self.scores.attrs['scale'].replace('_', ' ')})")

    def _draw_response(self, axes, response):
        """Draw the response of a neuron to each segment of a clip."""
        starts = response["seconds"].values
        edges = np.append(starts, starts[-1] + self.response.attrs["length"])
        axes.stairs(response.values, edges, fill=True, color=style.EMOTION_COLORS["sad"])
        axes.axhline(0, color="black", lw=0.6)
        axes.set(xlabel="time (s)", ylabel="activation lost", title="Effect of silencing a segment")
