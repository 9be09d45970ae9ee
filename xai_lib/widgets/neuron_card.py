import ipywidgets
import pandas as pd
from IPython.display import HTML, Audio

from .. import dissection, plots
from ..corpora import as_clips
from ..dissection.descriptions.vocabulary import escape_html
from .panel import Panel


def players(exemplars, sample_rate) -> HTML:
    """Return an HTML table of exemplars, each with a player at the recorded level.

    `exemplars` is as returned by `dissection.snippets`, perhaps with a column `caption`. Text is escaped, and truncated
    where it is long.
    """
    columns = [
        column for column in ("end", "activation", "label", "speaker", "start", "caption") if column in exemplars
    ]
    # float32 would show rounding errors.
    float_types = {column: float for column in columns if pd.api.types.is_float_dtype(exemplars[column])}
    table = exemplars[columns].astype(float_types).round(3).map(_cell).rename(index=_cell)
    table.index.name = exemplars.index.name and _cell(exemplars.index.name)
    sounds = [Audio(waveform, rate=sample_rate, normalize=False)._repr_html_() for waveform in exemplars["waveform"]]
    # Single spaces: pandas would turn two into a non-breaking one, and the player would lose its controls.
    table["listen"] = [" ".join(player.split()).replace("<audio ", '<audio style="width:15em" ') for player in sounds]
    with pd.option_context("display.max_colwidth", None):  # otherwise pandas would truncate the sounds
        return HTML(table.to_html(escape=False, border=0))


def _cell(text) -> str:
    """Return text as inert HTML; right-to-left letters affect only themselves."""
    return f'<bdi dir="auto">{escape_html(text)}</bdi>' if isinstance(text, str) else escape_html(text)


class NeuronCard(Panel):
    """Explorer of neurons: `plots.neuron_card` and exemplars with players, `k` at each end, by layer and neuron.

    `train` is as returned by `dissection.activations` for `clips`, the source of exemplars; `captions` is a Series by
    clip; `results` are further arguments of `dissection.card`. With held-out clips as `zero_ablation`, the effect of
    zero ablation on them is computed when the card is drawn.
    """

    def __init__(
        self, model, clips, *, train, captions, layer, neuron, k=2, zero_ablation=None, sample_rate=None, **results
    ):
        clips = as_clips(clips, sample_rate)
        self.model, self.clips, self.train, self.k = model, clips, train, k
        self.captions, self.zero_ablation, self.results = captions, zero_ablation, results
        values = train["activation"]
        controls = {
            "neuron": ipywidgets.IntSlider(neuron, 0, values.sizes["neuron"] - 1),
            "layer": ipywidgets.SelectionSlider(options=values["layer"].values.tolist(), value=layer),
        }
        super().__init__("Neuron card", controls, height=560)

    def draw(self, neuron, layer):
        """Return the card, the summary if there is one, and the exemplars with players."""
        options = {name: self.train.attrs[name] for name in ("part", "frames")}
        exemplars = dissection.exemplars(self.train["activation"], layer, neuron, self.k)
        exemplars = dissection.snippets(self.model, self.clips, exemplars, layer, neuron, **options)
        exemplars["caption"], effect = self.captions.reindex(exemplars.index), self.zero_ablation
        if isinstance(effect, pd.DataFrame):
            effect = dissection.zero_ablation(self.model, effect, layer, neuron, part=options["part"])
        card = dissection.card(layer, neuron, exemplars=exemplars, zero_ablation=effect, **self.results)
        summary = [HTML(f"<p>{_cell(card.summary)}</p>")] if card.summary is not None else []
        return [plots.neuron_card(card), *summary, players(exemplars, self.model.sample_rate)]
