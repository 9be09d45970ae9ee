"""How much of each acoustic factor goes with a label."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from . import style

COLORS = (style.EMOTION_COLORS["sad"], style.EMOTION_COLORS["angry"], style.EMOTION_COLORS["disgust"])
MARKERS = "osD"


def shares(tables, *, titles=None) -> plt.Figure:
    """Eta squared of each factor, for one or more sets of labels, with what shuffled labels reach.

    Parameters
    ----------
    tables : dict of str to DataFrame
        Of `acoustics.eta_squared`, by what the labels are ("true label", ...); all with the same rows.
    titles : dict of str to str, optional
        Names to show for the rows.

    Returns
    -------
    Figure
    """
    names = list(next(iter(tables.values())).index)
    figure, axis = plt.subplots(figsize=(style.WIDTH * 0.75, 0.36 * len(names) + 1.3), layout="constrained")
    step = 0.24
    for j, (what, table) in enumerate(tables.items()):
        at = np.arange(len(names)) + (j - (len(tables) - 1) / 2) * step
        table = table.loc[names]
        axis.barh(at, table["shuffled"], height=step, color=style.NULL_COLOR,
                  label="95 % of shuffled labels lie here" if j == 0 else None)
        axis.plot(table["eta_squared"], at, MARKERS[j % 3], color=COLORS[j % 3], markersize=7, label=what)
    axis.set(yticks=range(len(names)), xlim=(0, 1), xlabel="η²: share of the variance within speakers (0 to 1)")
    axis.set_yticklabels([(titles or {}).get(name, name) for name in names])
    axis.grid(axis="y", color="#EEEEEE")
    axis.set_axisbelow(True)
    axis.invert_yaxis()
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return figure
