from . import style


def relative_change(sweep, *, mode="flip"):
    """Plot how far, and in how many frames, each later layer changes when a layer is edited.

    `sweep` is as returned by `ablation.sweep`; for an edit of part "hidden_state" the diagonal is the edit itself.
    """
    figure, (change_axes, frame_axes) = style.panels(1, 2, height=3.8, sharey=True)
    relative_change, frames_changed = (
        style.of_mode(sweep, name, mode) for name in ("relative_change", "frames_changed")
    )
    style.layer_tiles(change_axes, relative_change, "Relative change ‖h′ − h‖ / ‖h‖", vmin=0)
    style.layer_tiles(frame_axes, frames_changed, "Share of frames changed by over 10 %", vmin=0, vmax=1)
    change_axes.set_ylabel(style.EDIT_DIM_LABELS[style.edited(relative_change, "readout_layer")])
    return figure
