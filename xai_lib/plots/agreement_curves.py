from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from . import style

_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


def agreement_curves(curves, *, null=(), ylabel="rank correlation over neurons"):
    """How far rankings of neurons agree, layer by layer.

    Parameters
    ----------
    curves : dict of str to Dataset
        From `statistics.over_speakers`: `mean`, `low`, `high` on the dim `layer`. Bounds are drawn up to ± 1.
    null : sequence of str
        Which of them are controls, drawn in grey.
    """
    figure, axes = plt.subplots(figsize=(style.WIDTH, 3.4))
    colors, marks = iter(_COLORS), iter("osD^v" * 3)
    for place, (name, curve) in enumerate(curves.items()):
        color = style.NULL_COLOR if name in null else next(colors)
        layers = curve["layer"].values + 0.06 * (place - (len(curves) - 1) / 2)
        low, high = (np.clip(curve[bound], -1, 1) for bound in ("low", "high"))
        error = [curve["mean"] - low, high - curve["mean"]]
        axes.errorbar(layers, curve["mean"], error, color=color, marker=next(marks), ms=5, capsize=2, label=name)
    axes.axhline(0, color="black", lw=0.6)
    n = int(next(iter(curves.values()))["n"].max())
    axes.set(xlabel="layer", ylabel=ylabel, xticks=curve["layer"].values)
    axes.set_title(f"Mean and 95 % interval over {n} speakers" if n > 7 else f"Mean over {n} speakers")
    figure.legend(loc="outside right upper")
    return figure
