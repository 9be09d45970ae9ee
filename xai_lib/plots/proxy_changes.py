import numpy as np

from . import style

_NAMES = {"rms": "RMS proxy", "zcr": "ZCR proxy", "centroid": "Centroid proxy"}


def proxy_changes(changes, validity):
    """Plot activation proxies at layers after the edit, and how well each tracks the feature it is named after.

    `changes` is as returned by `ablation.effect_over_speakers(sweep, "proxy_sd")` for one mode; tiles with q ≥ 0.05, or without q,
    are hatched. `validity` is as returned by `activation_proxies.validity`.
    """
    names, layers = changes["proxy"].values.tolist(), validity["layer"].values
    figure, panels = style.panels(2, len(names), height=5.4, height_ratios=(4, 1), sharex=True)
    largest = np.abs(changes["mean"]).max().item()
    limits = {"vmin": -largest, "vmax": largest} if np.isfinite(largest) else {}
    for (change_axes, validity_axes), name in zip(panels.T, names):
        change, proxy_validity = changes.sel(proxy=name), validity.sel(proxy=name)
        options = {"digits": 1, "significant": change["q"] < 0.05, "cmap": style.DIVERGING}
        style.layer_tiles(change_axes, change["mean"], f"{_NAMES[name]}, change in SD", **options, **limits)
        change_axes.set_xlabel("")
        validity_axes.bar(range(len(layers)), proxy_validity["mean"], color=style.RANDOM_COLOR)
        style.interval(validity_axes, range(len(layers)), proxy_validity, color="black", ls="")
        validity_axes.axhline(0, color="black", lw=0.6)
        validity_axes.set(ylim=(-1, 1), xlabel="readout layer", xticks=range(len(layers)), xticklabels=layers)
    panels[0, 0].set_ylabel(style.EDIT_DIM_LABELS[style.edited(changes["mean"], "proxy", "readout_layer")])
    panels[1, 0].set_ylabel("rank corr.\nwith feature")
    figure.supxlabel("hatched: n.s. against random neurons (q ≥ 0.05), or not tested", fontsize=9)
    return figure
