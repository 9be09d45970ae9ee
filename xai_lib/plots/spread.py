from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from .. import targets
from . import style


def spread(sweep, *, mode="flip"):
    """How far, and in how many frames, each later layer moves when a layer is edited.

    Parameters
    ----------
    sweep : Dataset
        Of `ablation.sweep`; for a block edit the diagonal is the edit itself.
    """
    figure, panels = plt.subplots(1, 2, figsize=(style.WIDTH, 3.8), sharey=True)
    names = {"spread": "Relative change ‖h′ − h‖ / ‖h‖", "felt": "Share of frames changed by over 10 %"}
    for axes, (name, title) in zip(panels, names.items()):
        heat(axes, average(sweep[name].sel(mode=mode)), title, vmin=0, vmax=1 if name == "felt" else None)
    panels[0].set_ylabel("edited layer")
    return figure


def average(values):
    """Mean over speakers, or over clips where speakers are not known."""
    units = targets.units(values)
    return units.mean("speaker" if "speaker" in units.dims else "clip")


def heat(axes, values, title, digits=2, told=None, **limits):
    """[layer, later] as numbered tiles; empty where there is nothing to read, hatched where not `told`."""
    grid = values.transpose("layer", "later").values
    image = axes.imshow(grid, aspect="auto", **limits)
    if grid.size <= 120:  # more would not be readable
        for i, j in np.argwhere(np.isfinite(grid)):
            shade = np.dot(image.cmap(image.norm(grid[i, j]))[:3], (0.3, 0.6, 0.1))
            axes.text(
                j,
                i,
                f"{grid[i, j]:.{digits}f}",
                ha="center",
                va="center",
                fontsize=8,
                color="black" if shade > 0.5 else "white",
            )
    else:
        axes.figure.colorbar(image, ax=axes)
    for i, j in () if told is None else np.argwhere(np.isfinite(grid) & ~told.transpose("layer", "later").values):
        axes.add_patch(plt.Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="///", ec="#999999", lw=0))
    for axis, dim in ((axes.xaxis, "later"), (axes.yaxis, "layer")):
        axis.set_ticks(range(values.sizes[dim]), values[dim].values)
    axes.set_xlabel("layer that is read")
    axes.set_title(title, fontsize=10)
