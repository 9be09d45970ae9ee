from .. import statistics
from ..ablation import effects
from . import style
from .layer_curves import over

_MEASURES = {
    "relative_change": "relative change ‖h′ − h‖ / ‖h‖",
    "frames_changed": "share of frames changed by over 10 %",
}


def distance(sweep):
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
    modes = sweep["mode"].values.tolist()
    for axes, (variable, label) in zip(panels, _MEASURES.items()):
        values = effects.distance(sweep, variable)
        units = statistics.by_speaker(effects.selected_values(values))
        curves = statistics.over_speakers(units).assign(speakers=units)
        random = effects.control_values(values, "random")
        random_mean = statistics.by_speaker(random).mean(["speaker", "random"])
        distances = curves["distance"].values
        for index, (mode, shift) in enumerate(zip(modes, style.apart(len(modes), 0.04 * len(modes)))):
            color, curve = style.COLORS[index % len(style.COLORS)], curves.sel(mode=mode)
            axes.plot(distances, random_mean.sel(mode=mode), color=color, lw=1, ls=":")
            if curve["n"].max() < statistics.MIN_SPEAKERS:  # too few for an interval: each speaker is shown
                axes.plot(
                    distances + shift, curve["speakers"].transpose(..., "speaker"), ".", color=color, alpha=0.5, ms=4
                )
            style.interval(axes, distances + shift, curve, color=color, marker="osD^vP"[index % 6], ms=4, label=mode)
        axes.set(xlabel="layers between edit and readout", ylabel=label, xticks=distances)
        axes.set_ylim(0, 1.05 if variable == "frames_changed" else None)
    dotted = ". Dotted: random neurons" if random.sizes["random"] else ""
    figure.suptitle(f"{over(curves)}{dotted}", x=0.01, ha="left", fontsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure
