"""Neuron cards: what is known of one neuron, from the results of the other functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr

from . import descriptions
from .descriptions.vocabulary import escape_html


@dataclass(frozen=True, eq=False)
class NeuronCard:
    """The results for one neuron; None for those that are not known.

    Attributes
    ----------
    z : DataArray [word]
        Of the words of its description.
    chance_z : float
        The greatest |z| of a description from shuffled captions, in 95 % of draws and neurons.
    sentence, summary : str
        Its description by these words, and one that was written by a language model.
    concept_match : Dataset
        Score of each concept, name of the best, p and q.
    selectivity : dict of Dataset [concept]
        By coordinate, such as "label".
    rho, p, q : float
        How well the description predicts activations on held-out clips.
    test : DataArray [clip]
        Activation on held-out clips.
    exemplars : DataFrame
        Its strongest and weakest clips.
    zero_ablation : Dataset
        The change in each class when the neuron is zeroed.
    """

    layer: int
    neuron: int
    part: str | None = None
    z: xr.DataArray | None = None
    chance_z: float | None = None
    sentence: str | None = None
    summary: str | None = None
    concept_match: xr.Dataset | None = None
    selectivity: Mapping[str, xr.Dataset] = field(default_factory=dict)
    rho: float | None = None
    p: float | None = None
    q: float | None = None
    test: xr.DataArray | None = None
    exemplars: pd.DataFrame | None = None
    zero_ablation: xr.Dataset | None = None

    @property
    def title(self) -> str:
        """Return which neuron it is."""
        part = f"{self.part}, " if self.part else ""
        return f"Layer {self.layer}, {part}neuron {self.neuron}"

    @property
    def description(self) -> str:
        """Return the summary, or else the sentence."""
        return self.summary or self.sentence or "no description"

    def facts(self) -> dict[str, str]:
        """Return the results in words, by heading."""
        facts = {"description": self.description}
        if self.rho is not None:
            facts["predicts held-out clips"] = f"ρ = {self.rho:+.2f} (q = {self.q:.3f})"
        if self.concept_match is not None:
            name = self.concept_match["name"].item() or "none"
            facts["concept"] = f"{name} (q = {float(self.concept_match['q']):.3f})"
        for coordinate, result in self.selectivity.items():
            significant = result["concept"].values[result["q"].values < 0.05]
            facts[f"distinguishes by {coordinate}"] = ", ".join(str(name) for name in significant) or "none"
        if self.zero_ablation is not None and "mean" in self.zero_ablation:
            changes = self.zero_ablation["mean"].to_series()
            facts["zero ablation"] = ", ".join(f"{name} {change:+.2f}" for name, change in changes.items())
        return facts

    def _repr_html_(self) -> str:
        rows = [
            f'<tr><th style="text-align:left">{escape_html(heading)}</th><td>{escape_html(text)}</td></tr>'
            for heading, text in self.facts().items()
        ]
        return f"<table><caption>{escape_html(self.title)}</caption>{''.join(rows)}</table>"


def card(
    layer: int,
    neuron: int,
    *,
    part: str | None = None,
    described: xr.Dataset | None = None,
    summaries: xr.DataArray | pd.Series | None = None,
    concept_match: xr.Dataset | None = None,
    predictivity: xr.Dataset | None = None,
    selectivity: xr.Dataset | Mapping[str, xr.Dataset] | None = None,
    test: xr.Dataset | None = None,
    exemplars: pd.DataFrame | None = None,
    zero_ablation: xr.Dataset | None = None,
) -> NeuronCard:
    """Collect the results for one neuron, for `plots.neuron_card` and `widgets.NeuronCard`.

    Parameters
    ----------
    part : str, optional
        Needed where the results cover several parts.
    described, concept_match, predictivity : Dataset
        As returned by `describe`, `identify` and `predictivity`.
    summaries : DataArray or Series of str by neuron, (layer, neuron) or (part, layer, neuron)
        Descriptions written by a language model.
    selectivity : Dataset, or {coordinate: Dataset}
        As returned by `selectivity`, by label or by several coordinates.
    test : Dataset
        As returned by `activations`, of clips that were not used for the description.
    exemplars : DataFrame
        As returned by `snippets`.
    zero_ablation : Dataset
        As returned by `zero_ablation`, on clips that were not used for the description.
    """
    results = {}
    if described is not None:
        results["z"] = _select(described["z"], part, layer, neuron)
        results["chance_z"] = _chance_level(_select(described["chance"], part, layer, neuron))
        options = {} if predictivity is None else {"min_z": predictivity.attrs["min_z"]}
        results["sentence"] = descriptions.sentence(results["z"], **options)
    if summaries is not None:
        results["summary"] = _summary(summaries, part, layer, neuron)
    if concept_match is not None:
        results["concept_match"] = _select(concept_match, part, layer, neuron)
    if predictivity is not None:
        prediction = _select(predictivity, part, layer, neuron)
        results |= {name: float(prediction[name]) for name in ("rho", "p", "q")}
    if selectivity is not None:
        if isinstance(selectivity, xr.Dataset):
            selectivity = {selectivity.attrs["by"]: selectivity}
        results["selectivity"] = {
            coordinate: _select(result, part, layer, neuron) for coordinate, result in selectivity.items()
        }
    if test is not None:
        results["test"] = _select(test["activation"], part, layer, neuron)
    return NeuronCard(layer, neuron, part, exemplars=exemplars, zero_ablation=zero_ablation, **results)


def _select(result, part, layer, neuron):
    """Return the part of a result that is of one neuron."""
    if "unit" in result.dims:
        return result.sel(part=part, layer=layer, neuron=neuron)
    return result.sel(layer=layer, neuron=neuron)


def _chance_level(shuffled_z) -> float:
    """Return the 95 % quantile over draws of the greatest |z| [draw, word]."""
    return float(np.abs(shuffled_z).max("word").quantile(0.95))


def _summary(summaries, part, layer, neuron) -> str | None:
    """Return the summary of one neuron, None if it has none."""
    if isinstance(summaries, pd.Series):
        keys = {1: neuron, 2: (layer, neuron), 3: (part, layer, neuron)}
        text = summaries.get(keys[summaries.index.nlevels])
    else:
        text = _select(summaries, part, layer, neuron).item()
    return text if isinstance(text, str) else None
