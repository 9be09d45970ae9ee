from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from . import style
from .spread import average, heat

_NAMES = {"rms": "RMS proxy", "zcr": "ZCR proxy", "centroid": "Centroid proxy"}


def proxy_changes(sweep, validity, *, mode="flip"):
    """Activation proxies at layers after the edit, and how far each may be taken for the feature it is named after.

    Parameters
    ----------
    sweep : Dataset
        Of `ablation.sweep` with proxies.
    validity : DataArray [layer, proxy]
        Of `proxies.validity`.
    """
    names = sweep["proxy"].values.tolist()
    figure, panels = plt.subplots(2, len(names), figsize=(style.WIDTH, 5.2), height_ratios=(4, 1), sharex=True)
    values = average(sweep["proxy_sd"].sel(mode=mode))
    limit = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1
    for column, name in enumerate(names):
        heat(
            panels[0, column],
            values.sel(proxy=name),
            f"{_NAMES[name]}, change in SD",
            digits=1,
            vmin=-limit,
            vmax=limit,
            cmap=style.DIVERGING,
        )
        panels[0, column].set_xlabel("")
        bars = panels[1, column]
        bars.bar(range(validity.sizes["layer"]), validity.sel(proxy=name), color=style.NULL_COLOR)
        bars.axhline(0, color="black", lw=0.6)
        bars.set(
            ylim=(-1, 1),
            xlabel="layer that is read",
            xticks=range(validity.sizes["layer"]),
            xticklabels=validity["layer"].values,
        )
    panels[0, 0].set_ylabel("edited layer")
    panels[1, 0].set_ylabel("rank corr.\nwith sound")
    return figure
