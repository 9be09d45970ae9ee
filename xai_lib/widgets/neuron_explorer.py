import ipywidgets
import numpy as np

from .. import attribution, results
from ..plots import style
from .panel import Panel

_BARS = 20


class NeuronExplorer(Panel):
    """Neurons of any layer by rank: how strongly each drives the target, and what drives the neuron.

    Left: the greatest mean scores of the layer, each speaker (or clip, where speakers are not known) a dot, the neuron
    filled in colour. Right: its response to the segments of one clip. `scores` are of `attribution.grad_x_activation`,
    `response` of `attribution.segment_response`, of the same layers; it starts at the last one unless told a `layer`.
    """

    def __init__(self, scores, response, *, layer=None):
        self.scores, self.response = scores, response
        layers = scores["layer"].values.tolist()
        clips = [(f"clip {clip}", place) for place, clip in enumerate(response["clip"].values)]
        controls = {
            "layer": ipywidgets.SelectionSlider(options=layers, value=layers[-1] if layer is None else layer),
            "rank": ipywidgets.IntSlider(1, 1, scores.sizes["neuron"]),
            "by": ipywidgets.Dropdown(options=["signed", "absolute"]),
            "clip": ipywidgets.Dropdown(options=clips, value=0),
        }
        super().__init__("Neurons by rank", controls)

    def draw(self, layer, rank, by, clip):
        every = self.scores.sizes["neuron"]
        order = attribution.top_neurons(self.scores, every, by=by, layer=layer)["neuron"].to_numpy()
        neuron = order[rank - 1]
        shown = order[:_BARS] if rank <= _BARS else [*order[: _BARS - 1], neuron]
        values = results.units(self.scores[by]).sel(layer=layer, neuron=shown).transpose(..., "neuron").values
        figure, (left, right) = style.panels(1, 2, height=3.2, width_ratios=[3, 2])
        colors = [style.EMOTION_COLORS["angry"] if n == neuron else "#B8C4CE" for n in shown]
        left.bar(range(len(shown)), values.mean(axis=0), color=colors)
        left.plot(values.T, ".", ms=4, color="black", alpha=0.4, mew=0)
        left.set_xticks(range(len(shown)), shown, rotation=90, fontsize=8)
        left.set(xlabel="neuron", ylabel=f"{by} attribution ({self.scores.attrs['scale'].replace('_', ' ')})")
        left.set_title(f"Layer {layer}: neuron {neuron} is number {rank} of {every}")
        line = self.response.isel(clip=clip).dropna("segment", how="all").sel(layer=layer, neuron=neuron)
        edges = np.append(line["seconds"].values, line["seconds"].values[-1] + self.response.attrs["length"])
        right.stairs(line.values, edges, fill=True, color=style.EMOTION_COLORS["sad"])
        right.axhline(0, color="black", lw=0.6)
        right.set(xlabel="time (s)", ylabel="activation lost", title="When a segment is silenced")
        return figure
