import ipywidgets
import numpy as np

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

    def __init__(self, scores, response, *, layer=None):
        self.scores, self.response = scores, response
        layers = scores["layer"].values.tolist()
        clips = [(f"clip {clip}", index) for index, clip in enumerate(response["clip"].values)]
        controls = {
            "layer": ipywidgets.SelectionSlider(options=layers, value=layers[-1] if layer is None else layer),
            "rank": ipywidgets.IntSlider(1, 1, scores.sizes["neuron"]),
            "by": ipywidgets.Dropdown(options=["signed", "absolute"]),
            "clip": ipywidgets.Dropdown(options=clips, value=0),
        }
        super().__init__("Neurons by rank", controls)

    def draw(self, layer, rank, by, clip):
        """Return the figure of the neuron of this rank in a layer."""
        neuron_count = self.scores.sizes["neuron"]
        order = attribution.top_neurons(self.scores, neuron_count, by=by, layer=layer)["neuron"].to_numpy()
        neuron = order[rank - 1]
        bar_neurons = order[:_BARS] if rank <= _BARS else [*order[: _BARS - 1], neuron]
        values = results.units(self.scores[by]).sel(layer=layer, neuron=bar_neurons).transpose(..., "neuron").values
        figure, (score_axes, response_axes) = style.panels(1, 2, height=3.2, width_ratios=[3, 2])
        colors = [style.EMOTION_COLORS["angry"] if n == neuron else "#B8C4CE" for n in bar_neurons]
        score_axes.bar(range(len(bar_neurons)), values.mean(axis=0), color=colors)
        score_axes.plot(values.T, ".", ms=4, color="black", alpha=0.4, mew=0)
        score_axes.set_xticks(range(len(bar_neurons)), bar_neurons, rotation=90, fontsize=8)
        score_axes.set(xlabel="neuron", ylabel=f"{by} attribution ({self.scores.attrs['scale'].replace('_', ' ')})")
        score_axes.set_title(f"Layer {layer}: neuron {neuron} is number {rank} of {neuron_count}")
        clip_response = self.response.isel(clip=clip).dropna("segment", how="all").sel(layer=layer, neuron=neuron)
        edges = np.append(
            clip_response["seconds"].values, clip_response["seconds"].values[-1] + self.response.attrs["length"]
        )
        response_axes.stairs(clip_response.values, edges, fill=True, color=style.EMOTION_COLORS["sad"])
        response_axes.axhline(0, color="black", lw=0.6)
        response_axes.set(xlabel="time (s)", ylabel="activation lost", title="Effect of silencing a segment")
        return figure
