from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets
import pandas as pd
import xarray as xr
from IPython.display import HTML, Audio

from .. import dissection, plots
from ..corpora import as_clips
from ..dissection.descriptions.vocabulary import escape_html
from .panel import Panel

if TYPE_CHECKING:
    from ..models import Model

_COLUMNS = ("end", "activation", "label", "speaker", "start", "caption")  # of the table of exemplars


def players(exemplars: pd.DataFrame, sample_rate: int) -> HTML:
    """Return an HTML table of exemplars, each with a player at the recorded level.

    `exemplars` is as returned by `dissection.snippets`, perhaps with a column `caption`. Text is escaped, and truncated
    where it is long.
    """
    table = pd.DataFrame(index=exemplars.index.map(_cell))
    for column in _COLUMNS:
        if column in exemplars:
            table[column] = [_cell(value) for value in _rounded(exemplars[column])]
    table.index.name = exemplars.index.name and _cell(exemplars.index.name)
    table["listen"] = [_player(waveform, sample_rate) for waveform in exemplars["waveform"]]
    with pd.option_context("display.max_colwidth", None):  # otherwise pandas would truncate the sounds
        return HTML(table.to_html(escape=False, border=0))


def _rounded(values):
    """Return a column with floats rounded to three digits; float32 would show rounding errors."""
    if pd.api.types.is_float_dtype(values):
        return values.astype(float).round(3)
    return values


def _player(waveform, sample_rate) -> str:
    """Return the HTML of a narrow player."""
    player = Audio(waveform, rate=sample_rate, normalize=False)._repr_html_()
    # Single spaces: pandas would turn two into a non-breaking one, and the player would lose its controls.
    return " ".join(player.split()).replace("<audio ", '<audio style="width:15em" ')


def _cell(value) -> str:
    """Return text as inert HTML; right-to-left letters affect only themselves."""
    if isinstance(value, str):
        return f'<bdi dir="auto">{escape_html(value)}</bdi>'
    return escape_html(value)


class NeuronCard(Panel):
    """Explorer of neurons: `plots.neuron_card` and exemplars with players, `k` at each end, by layer and neuron.

    `train` is as returned by `dissection.activations` for `clips`, the source of exemplars; `captions` is a Series by
    clip; `results` are further arguments of `dissection.card`. With held-out clips as `zero_ablation`, the effect of
    zero ablation on them is computed when the card is drawn.
    """

    def __init__(
        self,
        model: Model,
        clips,
        *,
        train: xr.Dataset,
        captions: pd.Series,
        layer: int,
        neuron: int,
        k: int = 2,
        zero_ablation: xr.Dataset | pd.DataFrame | None = None,
        sample_rate: int | None = None,
        **results,
    ):
        self.model = model
        self.clips = as_clips(clips, sample_rate)
        self.train = train
        self.captions = captions
        self.k = k
        self.zero_ablation = zero_ablation
        self.results = results
        values = train["activation"]
        controls = {
            "neuron": ipywidgets.IntSlider(neuron, 0, values.sizes["neuron"] - 1),
            "layer": ipywidgets.SelectionSlider(options=values["layer"].values.tolist(), value=layer),
        }
        super().__init__("Neuron card", controls, height=560)

    def draw(self, neuron: int, layer: int) -> list:
        """Return the card, the summary if there is one, and the exemplars with players."""
        part = self.train.attrs["part"]
        exemplars = dissection.exemplars(self.train["activation"], layer, neuron, self.k)
        exemplars = dissection.snippets(
            self.model, self.clips, exemplars, layer, neuron, part=part, frames=self.train.attrs["frames"]
        )
        exemplars["caption"] = self.captions.reindex(exemplars.index)
        effect = self.zero_ablation
        if isinstance(effect, pd.DataFrame):
            effect = dissection.zero_ablation(self.model, effect, layer, neuron, part=part)
        card = dissection.card(layer, neuron, exemplars=exemplars, zero_ablation=effect, **self.results)
        outputs = [plots.neuron_card(card)]
        if card.summary is not None:
            outputs.append(HTML(f"<p>{_cell(card.summary)}</p>"))
        outputs.append(players(exemplars, self.model.sample_rate))
        return outputs
