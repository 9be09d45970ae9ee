from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from . import style


def relative_change(sweep: xr.Dataset, *, mode: str = "flip") -> Figure:
    """Plot how far, and in how many frames, each later layer changes when a layer is edited.

    `sweep` is as returned by `ablation.sweep`; for an edit of part "hidden_state" the diagonal is the edit itself.
    """
    relative_change = style.of_mode(sweep, "relative_change", mode)
    frames_changed = style.of_mode(sweep, "frames_changed", mode)
    figure, (change_axes, frame_axes) = style.panels(1, 2, height=3.8, sharey=True)
    style.layer_tiles(change_axes, relative_change, "Relative change ‖h′ − h‖ / ‖h‖", vmin=0)
    style.layer_tiles(frame_axes, frames_changed, "Share of frames changed by over 10 %", vmin=0, vmax=1)
    change_axes.set_ylabel(style.EDIT_DIM_LABELS[style.edited(relative_change, "readout_layer")])
    return figure
