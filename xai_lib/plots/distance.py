from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from ..ablation import effects
from . import style
from .ablation import over

_MEASURES = {
    "relative_change": "relative change ‖h′ − h‖ / ‖h‖",
    "frames_changed": "share of frames changed by over 10 %",
}


def distance(sweep: xr.Dataset) -> Figure:
    """Plot how far, and in how many frames, later layers change, by distance from the edited layer; a line per mode.

    `sweep` is as returned by `ablation.sweep`, layer by layer. At each distance the mean is over the edited layers that
    have a layer that far above: the largest distance has the first layer alone. Dotted: random neurons.

    Raise ValueError if the sweep edited groups of layers.
    """
    figure, panels = style.panels(1, 2, height=4.2)
    if style.edited(sweep["relative_change"], "mode", "readout_layer", "clip", "neuron_set") == "group":
        raise ValueError(
            "distances are between single layers, and this sweep edited groups: run the sweep without groups"
        )
    for axes, (variable, label) in zip(panels, _MEASURES.items()):
        values = effects.distance(sweep, variable)
        units = statistics.by_speaker(effects.selected_values(values))
        curves = statistics.over_speakers(units).assign(speakers=units)
        random = effects.control_values(values, "random")
        random_units = statistics.by_speaker(random)
        _draw_modes(axes, curves, random_units.mean(["speaker", "random"]))
        axes.set(xlabel="layers between edit and readout", ylabel=label, xticks=curves["distance"].values)
        axes.set_ylim(0, 1.05 if variable == "frames_changed" else None)
    title = over(curves)
    if random.sizes["random"]:
        title += ". Dotted: random neurons"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def _draw_modes(axes, curves, random_mean):
    """Draw a curve by distance for each mode, with its interval (or each speaker), and the mean of random neurons."""
    modes = curves["mode"].values.tolist()
    distances = curves["distance"].values
    for index, shift in enumerate(style.apart(len(modes), 0.04 * len(modes))):
        curve = curves.sel(mode=modes[index])
        color = style.color(index)
        positions = distances + shift
        axes.plot(distances, random_mean.sel(mode=modes[index]), color=color, lw=1, ls=":")
        if curve["n"].max() < statistics.MIN_SPEAKERS:  # too few for an interval: each speaker is shown
            axes.plot(positions, curve["speakers"].transpose(..., "speaker"), ".", color=color, alpha=0.5, ms=4)
        style.interval(axes, positions, curve, color=color, marker=style.marker(index), ms=4, label=modes[index])
