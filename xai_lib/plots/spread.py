from . import style


def spread(sweep, *, mode="flip"):
    """How far, and in how many frames, each later layer moves when a layer is edited.

    `sweep` is of `ablation.sweep`; for a block edit the diagonal is the edit itself.
    """
    figure, (left, right) = style.panels(1, 2, height=3.8, sharey=True)
    size, felt = (style.of_mode(sweep, name, mode) for name in ("spread", "felt"))
    style.layer_tiles(left, size, "Relative change ‖h′ − h‖ / ‖h‖", vmin=0)
    style.layer_tiles(right, felt, "Share of frames changed by over 10 %", vmin=0, vmax=1)
    left.set_ylabel(style.EDITED[style.edited(size, "later")])
    return figure
