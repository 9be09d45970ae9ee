from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import style


def adjectives(table: pd.DataFrame, *, max_adjectives: int = 20) -> Figure:
    """Plot the number of neurons that each adjective describes, beside descriptions from shuffled captions.

    `table` is as returned by `open_concepts.distribution`; the `max_adjectives` adjectives that describe most neurons
    are shown.
    """
    top = table[:max_adjectives]
    rows = np.arange(len(top))
    figure, ax = style.panels(height=1.2 + 0.24 * len(top))
    ax.barh(rows, top["neurons"], 0.7, color=style.COLORS[0], label="original captions")
    if "chance" in top:
        error = np.array([top["chance"] - top["chance_low"], top["chance_high"] - top["chance"]])
        options = {"fmt": "o", "ms": 4, "capsize": 3, "color": "black", "mfc": style.RANDOM_COLOR}
        ax.errorbar(top["chance"], rows, xerr=error, label="shuffled captions: mean, 95 % of further draws", **options)
        ends = top[["neurons", "chance_high"]].max(axis=1)
        for row in np.flatnonzero(~(top["q"] < 0.05)):
            ax.text(ends.iloc[row], row, "  n.s. (q ≥ 0.05)", va="center")
    ax.set_yticks(rows, top.index, parse_math=False)
    ax.invert_yaxis()
    count_note = ""
    if len(top) < len(table):
        count_note = f" ({len(top)} of {len(table)})"
    ax.set(xlabel="neurons", xlim=(0, None), title=f"Neurons by adjective{count_note}; a neuron may have several")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
