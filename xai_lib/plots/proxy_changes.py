from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style

_NAMES = {"rms": "RMS proxy", "zcr": "ZCR proxy", "centroid": "Centroid proxy"}


def proxy_changes(changes: xr.Dataset, validity: xr.Dataset) -> Figure:
    """Plot activation proxies at layers after the edit, and how well each tracks the feature it is named after.

    `changes` is as returned by `ablation.effect_over_speakers(sweep, "proxy_sd")` for one mode; tiles with q ≥ 0.05, or
    without q, are hatched. `validity` is as returned by `activation_proxies.validity`.
    """
    names = changes["proxy"].values.tolist()
    figure, panels = style.panels(2, len(names), height=5.4, height_ratios=(4, 1), sharex=True)
    options = {"digits": 1, "cmap": style.DIVERGING}
    largest = np.abs(changes["mean"]).max().item()
    if np.isfinite(largest):
        options |= {"vmin": -largest, "vmax": largest}
    for change_axes, validity_axes, name in zip(panels[0], panels[1], names):
        change = changes.sel(proxy=name)
        title = f"{_NAMES[name]}, change in SD"
        style.layer_tiles(change_axes, change["mean"], title, significant=change["q"] < 0.05, **options)
        change_axes.set_xlabel("")
        _draw_validity(validity_axes, validity.sel(proxy=name))
    panels[0, 0].set_ylabel(style.EDIT_DIM_LABELS[style.edited(changes["mean"], "proxy", "readout_layer")])
    panels[1, 0].set_ylabel("rank corr.\nwith feature")
    figure.supxlabel("hatched: n.s. against random neurons (q ≥ 0.05), or not tested", fontsize=9)
    return figure


def _draw_validity(axes, validity):
    """Draw the correlation of a proxy with its feature by layer, with its interval."""
    layers = validity["layer"].values
    positions = range(len(layers))
    axes.bar(positions, validity["mean"], color=style.RANDOM_COLOR)
    style.interval(axes, positions, validity, color="black", ls="")
    axes.axhline(0, color="black", lw=0.6)
    axes.set(ylim=(-1, 1), xlabel="readout layer", xticks=positions, xticklabels=layers)
