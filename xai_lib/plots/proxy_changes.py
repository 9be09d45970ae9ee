import numpy as np

from . import style

_NAMES = {"rms": "RMS proxy", "zcr": "ZCR proxy", "centroid": "Centroid proxy"}


def proxy_changes(changes, validity):
    """Activation proxies at layers after the edit, and how far each may be taken for the feature it is named after.

    `changes` are of `ablation.summary(sweep, "proxy_sd")`, of one mode; tiles with q ≥ 0.05, or none, are hatched.
    `validity` is of `proxies.validity`.
    """
    names, layers = changes["proxy"].values.tolist(), validity["layer"].values
    figure, panels = style.panels(2, len(names), height=5.4, height_ratios=(4, 1), sharex=True)
    largest = np.abs(changes["mean"]).max().item()
    limits = {"vmin": -largest, "vmax": largest} if np.isfinite(largest) else {}
    for (above, below), name in zip(panels.T, names):
        here, track = changes.sel(proxy=name), validity.sel(proxy=name)
        look = {"digits": 1, "told": here["q"] < 0.05, "cmap": style.DIVERGING}
        style.layer_tiles(above, here["mean"], f"{_NAMES[name]}, change in SD", **look, **limits)
        above.set_xlabel("")
        below.bar(range(len(layers)), track["mean"], color=style.NULL_COLOR)
        style.interval(below, range(len(layers)), track, color="black", ls="")
        below.axhline(0, color="black", lw=0.6)
        below.set(ylim=(-1, 1), xlabel="layer that is read", xticks=range(len(layers)), xticklabels=layers)
    panels[0, 0].set_ylabel(style.EDITED[style.edited(changes["mean"], "proxy", "later")])
    panels[1, 0].set_ylabel("rank corr.\nwith sound")
    figure.supxlabel("hatched: not told from random neurons (q ≥ 0.05), or not tested", fontsize=9)
    return figure
