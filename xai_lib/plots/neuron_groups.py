from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .. import statistics
from ..corpora.filenames import EMOTIONS
from . import style


def neuron_groups(*tables: pd.DataFrame, ylabel: str = "mean activation") -> Figure:
    """Plot one neuron by emotion, sex or intensity: one dot per speaker, a speaker's two dots joined, and the means.

    Each of the `tables` is as returned by `attribution.distribution` and has a panel, which names what its clips agree
    in. Means have a 95 % t interval over speakers from 8 up.
    """
    widths = [0.6 + table.shape[1] for table in tables]
    figure, panels = style.panels(1, len(tables), sharey=True, squeeze=False, width_ratios=widths)
    for axes, table in zip(panels[0], tables):
        _draw_table(axes, table)
    n = max(len(table) for table in tables)
    info = tables[0].attrs
    title = f"Layer {info['layer']}, neuron {info['neuron']} of {info['part']}: each of {n} speakers, and their mean"
    panels[0, 0].set_ylabel(ylabel)
    panels[0, 0].set_title(title)
    return figure


def _draw_table(axes, table):
    """Draw each speaker, and mean and interval over speakers, of each column; join the dots of two columns."""
    names = [str(name) for name in table.columns]
    are_emotions = bool(set(names) & set(EMOTIONS))
    colors = style.colors(names) if are_emotions else dict.fromkeys(names, "#777777")
    pairs = table.dropna()
    joined = len(names) == 2 and len(pairs) > 0
    if joined:
        axes.plot([0, 1], pairs.T, color=style.RANDOM_COLOR, lw=0.8, zorder=0)
    width = 0 if joined else 0.15
    for index, name in enumerate(names):
        values = table.iloc[:, index].dropna()
        mean, low, high = statistics.interval(values)
        positions = index + style.apart(len(values), width)
        axes.plot(positions, values, "o", ms=4.5, color=colors[name], mec="black", mew=0.3, alpha=0.85)
        axes.errorbar(index + 0.3, mean, [[mean - low], [high - mean]], fmt="D", color="black", ms=4, capsize=2)
    tick_options = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(names) > 3 else {}
    axes.set_xticks(range(len(names)), names, parse_math=False, **tick_options)
    axes.set_xlim(-0.5, len(names) - 0.3)
    xlabel = f"{table.columns.name}"
    if "cell" in table.attrs:
        xlabel += f"\nclips agree in\n{table.attrs['cell']}"
    axes.set_xlabel(xlabel, parse_math=False, fontsize="small")
