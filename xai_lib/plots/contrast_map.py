from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from . import style

_LABELS = {"cohens_d": "Cohen's d", "auroc": "AUROC", "difference": "difference of activations"}
_CHANCE_LEVELS = {"cohens_d": 0, "auroc": 0.5, "difference": 0}


def contrast_map(
    contrast: xr.Dataset, selected: pd.DataFrame | None = None, *, variable: str = "cohens_d", level: float = 0.05
) -> Figure:
    """Plot how far every neuron of every layer distinguishes two kinds of clips, and the share of each layer that does.

    `contrast` is as returned by `attribution.activation_contrast` or `attribution.compare`, `variable` is "cohens_d",
    "auroc" or "difference". Neurons with q ≥ `level` are pale. Those in the table `selected` (as returned by
    `attribution.top_neurons`) are ringed.
    """
    contrast = contrast.transpose("layer", "neuron")
    layers = contrast["layer"].values
    chance = _CHANCE_LEVELS[variable]
    deviation = contrast[variable] - chance
    largest = float(np.abs(deviation).max())
    tested = bool(contrast["q"].notnull().any())
    significant = contrast["q"] < level
    opacity = np.where(significant | (not tested), 1, 0.25)

    figure, (axes, share_axes) = style.panels(1, 2, height=1.5 + 0.3 * len(layers), width_ratios=(5, 1), sharey=True)
    limits = {"vmin": chance - largest, "vmax": chance + largest}
    image = axes.imshow(contrast[variable].values, cmap=style.DIVERGING, alpha=opacity, **limits)
    axes.set(xlabel="neuron", ylabel="layer", yticks=range(len(layers)), yticklabels=layers)
    if selected is not None:
        style.ring(axes, selected, layers)

    more_active = 100 * (significant & (deviation > 0)).mean("neuron")
    less_active = 100 * (significant & (deviation < 0)).mean("neuron")
    share_axes.barh(range(len(layers)), more_active, color=image.cmap(0.9))
    share_axes.barh(range(len(layers)), -less_active, color=image.cmap(0.1))
    share_axes.axvline(0, color="black", lw=0.6)
    share_axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    share_axes.set_xlabel("less | more active\n(% of neurons)")
    share_axes.set_visible(tested)

    test_note = f"pale, not counted: n.s., q ≥ {level:g}" if tested else "too few for a test"
    axes.set_title(_title(contrast.attrs, test_note), parse_math=False)
    figure.colorbar(image, ax=axes, label=_LABELS[variable], location="left", pad=0.02)
    return figure


def _title(info, test_note):
    """Return the title: the two kinds of clips, the number of speakers, and what the clips agree in."""
    n_speakers = str(info["speakers_a"])
    if not info["paired"]:
        n_speakers += f" against {info['speakers_b']}"
    contrast = f"{info['a']} against {info['b']}: {n_speakers} speakers"
    return f"{contrast} ({test_note})\nclips that agree in {info['cell']}"
