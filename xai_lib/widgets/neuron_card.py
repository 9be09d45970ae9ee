"""Layer and neuron by slider: the neuron's card, and its exemplars to listen to."""

from __future__ import annotations

import ipywidgets
from IPython.display import HTML, Audio

from .. import dissection, plots
from .panel import Panel


class NeuronCard(Panel):
    """Sliders for layer and neuron; draws `plots.neuron_card`, a table of exemplars and players.

    Parameters
    ----------
    model : Model
    clips : DataFrame
        Of which the exemplars are some.
    layer, neuron : int
        Shown first.
    k : int
        Exemplars at each end.
    **results
        What `dissection.card` takes.
    """

    def __init__(self, model, clips, *, layer, neuron, k=2, **results):
        self.model, self.clips, self.k, self.results = model, clips, k, results
        values = results["train"]["activation"]
        controls = {
            "layer": ipywidgets.SelectionSlider(options=values["layer"].values.tolist(), value=layer),
            "neuron": ipywidgets.IntSlider(neuron, 0, values.sizes["neuron"] - 1),
        }
        super().__init__("What one neuron listens for", controls, height=560)

    def draw(self, layer, neuron):
        """The figure, the exemplars as a table, and a player for each."""
        card = dissection.card(layer, neuron, k=self.k, **self.results)
        activations = self.results["train"]
        found = dissection.snippets(self.model, self.clips, card["exemplars"], layer, neuron,
                                    part=activations.attrs["part"], frames=activations.attrs["frames"])  # fmt: skip
        players = []
        for clip, row in found.iterrows():
            players.append(HTML(f"{row['end']}, clip {clip}, {row['start']:.2f}–{row['stop']:.2f} s"))
            players.append(Audio(row["waveform"], rate=self.model.sample_rate))
        columns = [c for c in ("end", "activation", "label", "speaker", "peak", "caption") if c in found]
        table = HTML(found[columns].round(3).to_html(escape=True))
        return [plots.neuron_card(card), table, *players]
