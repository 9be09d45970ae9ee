from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style


def description_check(held: xr.Dataset) -> Figure:
    """Plot the correlation of descriptions with activations on held-out clips, by layer, beside two controls.

    `held` is as returned by `dissection.predictivity`.
    """
    figure, ax = style.panels(height=3.8)
    _draw_boxes(ax, held["rho"], -0.26, "the neuron's own", style.COLORS[0])
    _draw_boxes(ax, held["other"], 0, "another neuron's", style.COLORS[4])
    _draw_boxes(ax, held["shuffled"], 0.26, "from shuffled captions", style.RANDOM_COLOR)
    layers = held["layer"].values
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(range(len(layers)), layers)
    ax.set(xlabel="layer", ylabel="ρ with the activation", ylim=(-1.02, 1.02))
    ax.set_title("Descriptions on held-out clips (box: quartiles; whiskers: 5–95 % of neurons)")
    figure.legend(title="description", loc="outside right center")
    return figure


def _draw_boxes(ax, correlations, shift, name, color):
    """Draw a box of the correlations of each layer, and a square for the legend."""
    boxes = []
    for layer in correlations["layer"].values:
        values = correlations.sel(layer=layer).values.ravel()
        boxes.append(values[np.isfinite(values)])
    ax.boxplot(
        boxes,
        positions=np.arange(len(boxes)) + shift,
        widths=0.22,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "black"},
        boxprops={"facecolor": color},
    )
    defined = np.isfinite(correlations.values).mean()
    ax.plot([], [], "s", color=color, ms=9, label=f"{name} \n(ρ defined: {defined:.0%})")
