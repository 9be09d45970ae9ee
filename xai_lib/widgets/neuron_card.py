import ipywidgets
import pandas as pd
from IPython.display import HTML, Audio

from .. import dissection, plots
from ..corpora import as_clips
from ..dissection.descriptions.vocabulary import shown
from .panel import Panel


def players(found, sample_rate) -> HTML:
    """A table of exemplars (`dissection.snippets`, perhaps captioned), each with a player at the recorded level.

    Text is shown as text, whatever it holds, and cut where it is long.
    """
    names = [c for c in ("end", "activation", "label", "speaker", "start", "caption") if c in found]
    exact = {c: float for c in names if pd.api.types.is_float_dtype(found[c])}  # float32 would show its rounding
    table = found[names].astype(exact).round(3).map(_cell).rename(index=_cell)
    table.index.name = found.index.name and _cell(found.index.name)
    sounds = [Audio(x, rate=sample_rate, normalize=False)._repr_html_() for x in found["waveform"]]
    # Single spaces: of two, pandas would make a hard one, and the player would lose its controls.
    table["listen"] = [" ".join(player.split()).replace("<audio ", '<audio style="width:15em" ') for player in sounds]
    with pd.option_context("display.max_colwidth", None):  # or pandas would cut the sounds short
        return HTML(table.to_html(escape=False, border=0))


def _cell(text) -> str:
    """Text that does nothing; letters that run the other way turn only themselves."""
    return f'<bdi dir="auto">{shown(text)}</bdi>' if isinstance(text, str) else shown(text)


class NeuronCard(Panel):
    """Sliders for layer and neuron; draws `plots.neuron_card` and the neuron's exemplars with players, `k` at each end.

    `train` is of `dissection.activations` of `clips`, the exemplars' side; `captions` are a Series; `results` are what
    `dissection.card` takes. With clips not described from as `zeroed`, what holding the neuron at zero does to them is computed
    when its card is drawn.
    """

    def __init__(self, model, clips, *, train, captions, layer, neuron, k=2, zeroed=None, sample_rate=None, **results):
        clips = as_clips(clips, sample_rate)
        self.model, self.clips, self.train, self.k = model, clips, train, k
        self.captions, self.zeroed, self.results = captions, zeroed, results
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
        found["caption"], effect = self.captions.reindex(found.index), self.zeroed
        if isinstance(effect, pd.DataFrame):
            effect = dissection.zeroed(self.model, effect, layer, neuron, part=made["part"])
        card = dissection.card(layer, neuron, exemplars=found, zeroed=effect, **self.results)
        words = [HTML(f"<p>{_cell(card['summary'])}</p>")] if card["summary"] is not None else []
        return [plots.neuron_card(card), *words, players(found, self.model.sample_rate)]
