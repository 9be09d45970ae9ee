from .. import statistics
from ..ablation import effects
from . import style
from .layer_curves import over

_MEASURES = {"spread": "relative change ‖h′ − h‖ / ‖h‖", "felt": "share of frames changed by over 10 %"}


def distance(sweep):
    """How far, and in how many frames, later layers move, by their distance from the edited one; a line per mode.

    `sweep` is of `ablation.sweep`, layer by layer. At each distance the mean is over the edited layers that have a layer
    so far above: the farthest is of the first alone. Dotted: the random neurons.
    """
    figure, panels = style.panels(1, 2, height=4.2)
    if style.edited(sweep["spread"], "mode", "later", "clip") == "group":
        raise ValueError("a distance is from one layer to another: run the sweep without groups")
    modes = sweep["mode"].values.tolist()
    for axes, (variable, label) in zip(panels, _MEASURES.items()):
        units = statistics.by_speaker(effects.distance(sweep, variable))
        curves = statistics.over_speakers(units).assign(speakers=units)
        null = statistics.by_speaker(effects.distance(sweep, f"null_{variable}")).mean(["speaker", "null"])
        steps = curves["distance"].values
        for place, (mode, shift) in enumerate(zip(modes, style.apart(len(modes), 0.04 * len(modes)))):
            color, one = style.COLORS[place % len(style.COLORS)], curves.sel(mode=mode)
            axes.plot(steps, null.sel(mode=mode), color=color, lw=1, ls=":")
            if one["n"].max() < statistics.FEWEST:  # too few for an interval: each speaker is shown
                axes.plot(steps + shift, one["speakers"].transpose(..., "speaker"), ".", color=color, alpha=0.5, ms=4)
            style.interval(axes, steps + shift, one, color=color, marker="osD^vP"[place % 6], ms=4, label=mode)
        axes.set(xlabel="layers between edit and reading", ylabel=label, xticks=steps)
        axes.set_ylim(0, 1.05 if variable == "felt" else None)
    dotted = ". Dotted: random neurons" if sweep.sizes["null"] else ""
    figure.suptitle(f"{over(curves)}{dotted}", x=0.01, ha="left", fontsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure
