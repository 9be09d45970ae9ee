from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style


def adjectives_by_layer(result: xr.Dataset) -> Figure:
    """Plot the mean number of adjectives per neuron by layer, a line through the layers, and shuffled captions.

    `result` is as returned by `open_concepts.by_layer`. Each part has its colour; shaded: the 95 % band of the line
    with layers as units; grey: the range of the draws from shuffled captions.
    """
    figure, ax = style.panels(height=4)
    if "part" in result.dims:
        for index, part in enumerate(result["part"].values.tolist()):
            _draw_part(ax, result.sel(part=part), index, name=part)
    else:
        _draw_part(ax, result, 0)
    if "chance" in result:
        name = f"shuffled captions: {result.sizes['draw']} draws, all"
        ax.fill_between([], [], [], color=style.RANDOM_COLOR, label=name)
    ax.set(xlabel="layer", ylabel="adjectives per neuron (mean)", ylim=(0, None), xticks=np.unique(result["layer"]))
    ax.set_title("Adjectives by layer: line and 95 % band, layers as units")
    figure.legend(loc="outside lower center", ncols=1 if result.sizes.get("part", 1) > 1 else 2)
    return figure


def _draw_part(ax, result, index, name=None):
    """Draw the mean of each layer, the line through them with its band, and the range of shuffled captions."""
    color = style.color(index)
    mean = result["mean"].dropna("layer")
    layers = mean["layer"].values
    if "chance" in result:
        draws = result["chance"].sel(layer=layers).transpose("draw", "layer")
        ax.fill_between(layers, draws.min("draw"), draws.max("draw"), color=style.RANDOM_COLOR, alpha=0.7, lw=0)
        ax.plot(layers, draws.mean("draw"), color="#777777", lw=1, ls=":")

    ax.plot(layers, mean, style.marker(index), color=color, label=_label(result, name))
    slope = float(result["slope"])
    line = float(result["intercept"]) + slope * layers
    centred = layers - layers.mean()
    half_width = (float(result["high"]) - slope) * np.sqrt(np.mean(centred**2) + centred**2)
    ax.plot(layers, line, color=color, lw=1.2)
    ax.fill_between(layers, line - half_width, line + half_width, color=color, alpha=0.15, lw=0)


def _label(result, name):
    """Return the label of a part: its name, and the slope of its line where there is one."""
    slope = float(result["slope"])
    if not np.isfinite(slope):
        return name
    interval = f"{float(result['low']):+.2f} to {float(result['high']):+.2f}"
    text = f"{slope:+.2f} per layer ({interval}), p = {float(result['p']):.2g}".replace("-", "−")
    return text if name is None else f"{name}: {text}"
