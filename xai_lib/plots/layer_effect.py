from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from .. import targets
from . import style
from .spread import average


def layer_effect(sweep, layer, *, mode="flip", variable="delta", xlabel="change of the target's log-odds (nats)"):
    """One edited layer: each speaker and each random draw, and the probabilities before and after.

    Parameters
    ----------
    sweep : Dataset
        Of `ablation.sweep`.
    variable : str
        "delta", "kl" or "changed".
    """
    here = sweep.sel(layer=layer, mode=mode)
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 3.6), width_ratios=(1, 1))
    effect = targets.units(here[variable])
    left.plot(effect, 1 + np.linspace(-0.2, 0.2, effect.size), "o", ms=5, alpha=0.6, color="#0072B2")
    left.plot(effect.mean(), 1, "|", ms=26, mew=2.5, color="#0072B2")
    rows = {1: f"chosen:\n{effect.dims[0]}s, mean"}
    null = average(here[f"null_{variable}"])
    if null.size:
        left.plot(null, np.linspace(-0.25, 0.25, null.size), ".", color="#777777", alpha=0.7)
        rows[0] = "random:\ndraws"
    left.axvline(0, color="black", lw=0.6)
    left.set(xlabel=xlabel, ylim=(-0.6, 1.6))
    left.set_yticks(list(rows), list(rows.values()))
    left.set_title(f"Layer {layer}, {mode}")
    labels = sweep["label"].values.tolist()
    at, colors = np.arange(len(labels)), style.colors(labels)
    right.barh(at - 0.2, average(here["clean_probability"]), 0.38, color=style.NULL_COLOR, label="clean")
    right.barh(at + 0.2, average(here["probability"]), 0.38, color=[colors[name] for name in labels])
    right.set(xlabel="probability", xlim=(0, None))
    right.set_yticks(at, labels)
    right.invert_yaxis()
    right.set_title("Grey: clean. Colour: edited")
    return figure
