import html

import ipywidgets
import pandas as pd
from IPython.display import HTML, Audio

from .. import dissection, plots
from .panel import Panel


def players(found, sample_rate) -> HTML:
    """A table of exemplars (`dissection.snippets`, perhaps captioned), each with a player at the recorded level."""
    names = [c for c in ("end", "activation", "label", "speaker", "start", "caption") if c in found]
    table = found[names].round(3).astype(str).map(html.escape)
    sounds = [Audio(x, rate=sample_rate, normalize=False)._repr_html_() for x in found["waveform"]]
    # Single spaces: of two, pandas would make a hard one, and the player would lose its controls.
    table["listen"] = [" ".join(player.split()).replace("<audio ", '<audio style="width:15em" ') for player in sounds]
    with pd.option_context("display.max_colwidth", None):  # or pandas would cut the sounds short
        return HTML(table.to_html(escape=False, border=0))


class NeuronCard(Panel):
    """Sliders for layer and neuron; draws `plots.neuron_card` and the neuron's exemplars with players, `k` at each end.

    `train` is of `dissection.activations` of `clips`, the exemplars' side; `captions` are a Series; `results` are what
    `dissection.card` takes.
    """

    def __init__(self, model, clips, *, train, captions, layer, neuron, k=2, **results):
        self.model, self.clips, self.train, self.k = model, clips, train, k
        self.captions, self.results = captions, results
        values = train["activation"]
        controls = {
            "neuron": ipywidgets.IntSlider(neuron, 0, values.sizes["neuron"] - 1),
            "layer": ipywidgets.SelectionSlider(options=values["layer"].values.tolist(), value=layer),
        }
        super().__init__("What one neuron listens for", controls, height=560)

    def draw(self, neuron, layer):
        made = {name: self.train.attrs[name] for name in ("part", "frames")}
        found = dissection.exemplars(self.train["activation"], layer, neuron, self.k)
        found = dissection.snippets(self.model, self.clips, found, layer, neuron, **made)
        found["caption"] = self.captions.reindex(found.index)
        card = dissection.card(layer, neuron, **self.results)
        return [plots.neuron_card(card), players(found, self.model.sample_rate)]
