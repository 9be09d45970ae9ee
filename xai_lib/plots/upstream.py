import numpy as np
from matplotlib.patches import Patch

from .. import results, statistics
from . import style


def upstream(result):
    """Plot how far the input must move for a layer to return the edited output, and the share of the edit not reached.

    `result` is as returned by `inversion.upstream`. Points: each random set. Hatched: the output was reached in less
    than half of the clips. Intervals are over speakers, from 8 up; with fewer, a dash for each.
    """
    modes, layers = result["mode"].values.tolist(), result["layer"].values
    figure, (distance_axes, residual_axes) = style.panels(2, height=5, height_ratios=(3, 2), sharex=True)
    width = 0.8 / len(modes)
    for index, mode in enumerate(modes):
        mode_result, color = result.sel(mode=mode), style.COLORS[index % len(style.COLORS)]
        positions = layers + width * (index - (len(modes) - 1) / 2)
        not_reached = results.average(mode_result["reached"].astype(float)).values < 0.5
        for axis, name in ((distance_axes, "distance"), (residual_axes, "residual")):
            bars = axis.bar(positions, results.average(mode_result[name]), 0.92 * width, color=color, alpha=0.55)
            for bar in np.array(bars.patches)[not_reached]:
                bar.set(hatch="///", edgecolor="white", linewidth=0)
            units = results.units(mode_result[name])
            if "speaker" in units.dims and units.sizes["speaker"] >= statistics.MIN_SPEAKERS:
                style.interval(axis, positions, statistics.over_speakers(units), color=color, ls="")
            else:
                axis.plot(positions, units.transpose(..., "layer").values.T, "_", color=color, ms=9)
            random_values = results.average(mode_result[f"random_{name}"]).transpose("layer", "random").values
            axis.plot(
                positions[:, None] + style.apart(random_values.shape[1], 0.25 * width),
                random_values,
                ".",
                color="#444444",
                ms=3,
            )
        residual_axes.hlines(
            results.average(mode_result["floor"]), positions - width / 2, positions + width / 2, color="black", lw=1.6
        )
    distance_axes.set(ylabel="distance of the input\n‖x′ − x‖ / ‖x‖", ylim=(0, None))
    distance_axes.set_title(f"Input for an edited output: mean over {results.units(result['distance']).dims[0]}s")
    residual_axes.axhline(result.attrs["tolerance"], color="gray", lw=0.8, ls=":")
    residual_axes.set(xlabel="edited layer", ylabel="residual\n(share of the edit)", xticks=layers)
    residual_axes.set_ylim(0, max(residual_axes.get_ylim()[1], 4 * result.attrs["tolerance"]))
    handles = [Patch(color=color, alpha=0.55, label=mode) for mode, color in zip(modes, style.COLORS)]
    handles += [distance_axes.plot([], [], ".", color="#444444", label="size-matched random neurons")[0]]
    handles += [residual_axes.hlines([], 0, 0, color="black", label="floor: out of reach of the layer norm")]
    handles += [residual_axes.plot([], [], color="gray", lw=0.8, ls=":", label="tolerance")[0]]
    handles += [Patch(facecolor="gray", hatch="///", edgecolor="white", label="not reached")]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)
    return figure
