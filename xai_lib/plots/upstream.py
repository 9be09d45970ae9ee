from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .. import ablation, results, statistics
from . import style


def upstream(result: xr.Dataset) -> Figure:
    """Plot how far the input must move for a layer to return the edited output, and the share of the edit not reached.

    `result` is as returned by `inversion.upstream`. Points: each random set. Hatched: the output was reached in less
    than half of the clips. Intervals are over speakers, from 8 up; with fewer, a dash for each.
    """
    modes = result["mode"].values.tolist()
    layers = result["layer"].values
    width = 0.8 / len(modes)
    figure, (distance_axes, residual_axes) = style.panels(2, height=5, height_ratios=(3, 2), sharex=True)
    for index, mode in enumerate(modes):
        mode_result = result.sel(mode=mode)
        positions = layers + width * (index - (len(modes) - 1) / 2)
        _draw_mode(distance_axes, positions, mode_result, "distance", width, style.color(index))
        _draw_mode(residual_axes, positions, mode_result, "residual", width, style.color(index))
        floor = results.average(ablation.selected_values(mode_result["floor"]))
        residual_axes.hlines(floor, positions - width / 2, positions + width / 2, color="black", lw=1.6)

    tolerance = result.attrs["tolerance"]
    distance_axes.set(ylabel="distance of the input\n‖x′ − x‖ / ‖x‖", ylim=(0, None))
    distance_axes.set_title(f"Input for an edited output: mean over {results.units(result['distance']).dims[0]}s")
    residual_axes.axhline(tolerance, color="gray", lw=0.8, ls=":")
    residual_axes.set(xlabel="edited layer", ylabel="residual\n(share of the edit)", xticks=layers)
    residual_axes.set_ylim(0, max(residual_axes.get_ylim()[1], 4 * tolerance))

    handles = [Patch(color=color, alpha=0.55, label=mode) for mode, color in zip(modes, style.COLORS)]
    handles += distance_axes.plot([], [], ".", color="#444444", label="size-matched random neurons")
    handles.append(residual_axes.hlines([], 0, 0, color="black", label="floor: out of reach of the layer norm"))
    handles += residual_axes.plot([], [], color="gray", lw=0.8, ls=":", label="tolerance")
    handles.append(Patch(facecolor="gray", hatch="///", edgecolor="white", label="not reached"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)
    return figure


def _draw_mode(axes, positions, result, variable, width, color):
    """Draw a bar per layer for one mode, with the interval over speakers (or each speaker), and each random set."""
    selected = ablation.selected_values(result[variable])
    bars = axes.bar(positions, results.average(selected), 0.92 * width, color=color, alpha=0.55)
    reached = results.average(ablation.selected_values(result["reached"]).astype(float)).values
    for bar, share in zip(bars, reached):
        if share < 0.5:
            bar.set(hatch="///", edgecolor="white", linewidth=0)

    units = results.units(selected)
    if "speaker" in units.dims and units.sizes["speaker"] >= statistics.MIN_SPEAKERS:
        style.interval(axes, positions, statistics.over_speakers(units), color=color, ls="")
    else:
        axes.plot(positions, units.transpose(..., "layer").values.T, "_", color=color, ms=9)
    random = ablation.control_values(result[variable], "random")
    random_values = results.average(random).transpose("layer", "random").values
    random_positions = positions[:, None] + style.apart(random_values.shape[1], 0.25 * width)
    axes.plot(random_positions, random_values, ".", color="#444444", ms=3)
