from matplotlib import pyplot as plt

from . import style


def differences(result):
    """Plot the difference of each label from the base in physical units: one panel per factor, one row per label.

    `result` is as returned by `emotion_profiles.differences`. Intervals are drawn from 8 speakers up; means with
    q < 0.05 are filled.
    """
    labels = [str(name) for name in result["label"].values]
    colors, rows = style.colors(labels), -(-result.sizes["factor"] // 3)
    height = rows * (0.28 * len(labels) + 1) + 0.5
    figure, axes = style.panels(rows, 3, height=height, sharey=True, squeeze=False)
    for axis, factor in zip(axes.flat, result["factor"].values):
        factor_result = result.sel(factor=factor)
        axis.axvline(0, color="gray", lw=0.8)
        for i, label in enumerate(labels):
            label_result, color = factor_result.sel(label=label), colors[label]
            points, fill = label_result["difference"].values, color if label_result["q"] < 0.05 else "white"
            axis.scatter(points, i + style.apart(len(points), 0.25), s=9, color=color, edgecolor="gray", lw=0.3)
            axis.plot([label_result["low"], label_result["high"]], [i, i], color="black", lw=1.4)
            axis.plot(label_result["mean"], i, "o", ms=6, mec="black", mfc=fill)
        axis.set(
            title=str(factor_result["title"].values),
            xlabel=f"{factor_result['unit'].values} from {result.attrs['base']}",
        )
        axis.set_yticks(range(len(labels)), labels, parse_math=False)
    axes[0, 0].invert_yaxis()
    for axis in axes.flat[result.sizes["factor"] :]:
        axis.set_axis_off()
    handles = [plt.Line2D([], [], ls="", marker=".", color="gray", label="speaker")]
    for name, fill in (("mean, q < 0.05", "gray"), ("mean, q ≥ 0.05", "white")):
        handles.append(plt.Line2D([], [], marker="o", color="black", mfc=fill, label=name))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure
