import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker

from .. import statistics
from . import style

_MARKERS = {"female": "o", "male": "^"}


def factors(cells):
    """Plot one panel per factor: labels across, one point per speaker, mean and interval, separately by sex.

    `cells` is as returned by `emotion_profiles.cells`. Where `sex` is known, women are drawn left of men. Intervals are
    drawn from 8 speakers up.
    """
    labels = [str(name) for name in cells["label"].values]
    colors, rows = style.colors(labels), -(-cells.sizes["factor"] // 2)
    sex = cells["sex"].values if "sex" in cells.coords else np.full(cells.sizes["speaker"], "")
    groups = sorted(set(sex))
    figure, axes = style.panels(rows, 2, height=2.1 * rows + 0.7, sharex=True, squeeze=False)
    for axis, factor in zip(axes.flat, cells["factor"].values):
        values = cells.sel(factor=factor).transpose("label", "speaker")
        for i, label in enumerate(labels):
            for j, group in enumerate(groups):
                points = values.values[i, sex == group]
                options = {"color": colors[label], "edgecolor": "black", "lw": 0.3}
                position = i + (j - (len(groups) - 1) / 2) * 0.7 / len(groups)
                axis.scatter(
                    position + style.apart(len(points), 0.08), points, 14, marker=_MARKERS.get(group, "s"), **options
                )
                mean, low, high = statistics.interval(points)
                axis.plot([position - 0.16, position + 0.16], [mean, mean], color="black", lw=1.8)
                axis.plot([position, position], [low, high], color="black", lw=1.2)
        if factor == "f0":
            axis.set_yscale("log", base=2)
            axis.yaxis.set_major_locator(ticker.LogLocator(2, subs=(1, 1.5)))
            axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%.0f"))
        axis.set(ylabel=str(values["unit"].values), title=str(values["title"].values))
        axis.set_xticks(range(len(labels)), labels, rotation=35, ha="right", parse_math=False)
    for axis in axes.flat[cells.sizes["factor"] :]:
        axis.set_axis_off()
    handles = [plt.Line2D([], [], color="black", label="mean, 95 % interval over speakers")]
    for group in groups:
        options = {"ls": "", "marker": _MARKERS.get(group, "s"), "color": "gray"}
        handles.append(plt.Line2D([], [], label=f"{group} speaker".strip(), **options))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure
