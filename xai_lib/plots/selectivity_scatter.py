from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from . import style

_NAMES = {"manner": "manner of articulation", "emotion": "emotion", "statement": "statement"}
_COLORS = dict(zip(_NAMES, style.COLORS))


def selectivity_scatter(result: xr.Dataset, neurons: pd.DataFrame | None = None) -> Figure:
    """Plot the share of each neuron's variance that goes with phonetics (x) and emotion (y), coloured by layer.

    `result` is as returned by `variance_explained.selectivity`. All shares are relative to the chance level, the mean
    over shuffled labels. Right: the median neuron of each layer, with its interval over speakers from 8 up, and the
    interquartile range of the neurons. Neurons in the table `neurons` (`layer`, `neuron`) are ringed. Raise ValueError
    if the result has fewer than two tasks.
    """
    tasks = result["task"].values.tolist()
    if len(tasks) < 2:
        raise ValueError(f"a scatter plot needs two tasks, phonetics and emotion, and the result has only {tasks[0]}")
    layers = result["layer"].values
    figure, (scatter_axes, layer_axes) = style.panels(1, 2, height=4, width_ratios=[1.3, 1])
    dots = _draw_neurons(scatter_axes, result["excess"], neurons)
    figure.colorbar(dots, ax=scatter_axes, label="layer", ticks=layers)
    for task in tasks:
        _draw_layers(layer_axes, result.sel(task=task), task)
    layer_axes.axhline(0, color="black", lw=0.6)
    layer_axes.set(
        xlabel="layer", ylabel="share beyond chance (η²)", xticks=layers, title="Median neuron, interquartile range"
    )
    layer_axes.legend()
    return figure


def _draw_neurons(axes, excess, neurons):
    """Draw a dot per neuron, coloured by layer, and ring some; return the dots."""
    excess = excess.transpose("task", "layer", "neuron")
    x, y = excess
    order = np.random.default_rng(0).permutation(x.size)  # so that no layer hides another
    colors = np.repeat(excess["layer"].values, excess.sizes["neuron"])[order]
    dots = axes.scatter(x.values.ravel()[order], y.values.ravel()[order], c=colors, s=9, alpha=0.7, lw=0)
    if neurons is not None:
        for row in neurons.itertuples():
            neuron = {"layer": row.layer, "neuron": row.neuron}
            axes.plot(x.sel(neuron), y.sel(neuron), "o", ms=8, mfc="none", mec="black", mew=0.9)
    axes.set_xlabel(f"{_NAMES[x['task'].item()]}: share beyond chance (η²)")
    axes.set_ylabel(f"{_NAMES[y['task'].item()]}: share beyond chance (η²)")
    axes.set_title("Each neuron's variance within speakers")
    return dots


def _draw_layers(axes, result, task):
    """Draw the median neuron of each layer with its interval over speakers, and the neurons' interquartile range."""
    layers = result["layer"].values
    shares = result["excess"].transpose("layer", "neuron")
    low, middle, high = np.nanquantile(shares, [0.25, 0.5, 0.75], axis=1)
    axes.fill_between(layers, low, high, color=_COLORS[task], alpha=0.2, lw=0)
    interval = statistics.over_speakers(result["typical"])
    if result.sizes["speaker"] < statistics.MIN_SPEAKERS:
        interval["mean"] = "layer", middle
    style.interval(axes, layers, interval, color=_COLORS[task], marker="o", ms=5, label=_NAMES[task])
