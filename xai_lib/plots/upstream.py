import numpy as np
from matplotlib.patches import Patch

from .. import results, statistics
from . import style


def upstream(result):
    """How far from the true input one lies that makes a layer give the edited output, and what no input makes.

    `result` is of `inversion.upstream`. Points: each random set. Hatched: the output was reached in less than half of
    the clips. Intervals over speakers, from 8 up; below that a dash for each.
    """
    modes, at = result["mode"].values.tolist(), result["layer"].values
    figure, (above, below) = style.panels(2, height=5, height_ratios=(3, 2), sharex=True)
    width = 0.8 / len(modes)
    for place, mode in enumerate(modes):
        one, color = result.sel(mode=mode), style.COLORS[place % len(style.COLORS)]
        x = at + width * (place - (len(modes) - 1) / 2)
        lost = results.average(one["reached"].astype(float)).values < 0.5
        for axis, name in ((above, "distance"), (below, "residual")):
            bars = axis.bar(x, results.average(one[name]), 0.92 * width, color=color, alpha=0.55)
            for bar in np.array(bars.patches)[lost]:
                bar.set(hatch="///", edgecolor="white", linewidth=0)
            units = results.units(one[name])
            if "speaker" in units.dims and units.sizes["speaker"] >= statistics.FEWEST:
                style.interval(axis, x, statistics.over_speakers(units), color=color, ls="")
            else:
                axis.plot(x, units.transpose(..., "layer").values.T, "_", color=color, ms=9)
            null = results.average(one[f"null_{name}"]).transpose("layer", "null").values
            axis.plot(x[:, None] + style.apart(null.shape[1], 0.25 * width), null, ".", color="#444444", ms=3)
        below.hlines(results.average(one["floor"]), x - width / 2, x + width / 2, color="black", lw=1.6)
    above.set(ylabel="distance of the input found\n‖x′ − x‖ / ‖x‖", ylim=(0, None))
    above.set_title(f"Input for an edited output: mean over {results.units(result['distance']).dims[0]}s")
    below.axhline(result.attrs["tolerance"], color="gray", lw=0.8, ls=":")
    below.set(xlabel="edited layer", ylabel="share of the edit\nleft over", xticks=at)
    below.set_ylim(0, max(below.get_ylim()[1], 4 * result.attrs["tolerance"]))
    handles = [Patch(color=color, alpha=0.55, label=mode) for mode, color in zip(modes, style.COLORS)]
    handles += [above.plot([], [], ".", color="#444444", label="random neurons of like size")[0]]
    handles += [below.hlines([], 0, 0, color="black", label="floor: what no layer norm gives")]
    handles += [below.plot([], [], color="gray", lw=0.8, ls=":", label="tolerance")[0]]
    handles += [Patch(facecolor="gray", hatch="///", edgecolor="white", label="not reached")]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)
    return figure
