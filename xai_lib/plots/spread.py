from . import style


def spread(sweep, *, mode="flip"):
    """Plot how far, and in how many frames, each later layer changes when a layer is edited.

    `sweep` is as returned by `ablation.sweep`; for an edit of part "block" the diagonal is the edit itself.
    """
    figure, (change_axes, frame_axes) = style.panels(1, 2, height=3.8, sharey=True)
    relative_change, felt = (style.of_mode(sweep, name, mode) for name in ("spread", "felt"))
    style.layer_tiles(change_axes, relative_change, "Relative change ‖h′ − h‖ / ‖h‖", vmin=0)
    style.layer_tiles(frame_axes, felt, "Share of frames changed by over 10 %", vmin=0, vmax=1)
    change_axes.set_ylabel(style.EDITED[style.edited(relative_change, "later")])
    return figure
