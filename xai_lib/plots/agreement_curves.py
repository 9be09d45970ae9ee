from __future__ import annotations

from collections.abc import Mapping

import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from . import style


def agreement_curves(curves: Mapping[str, xr.Dataset], target: str) -> Figure:
    """Plot how far neuron rankings agree with that of a target, layer by layer, for this and for other targets.

    `curves` has a panel each, {title: Dataset returned by `statistics.over_speakers`, with dims `target` and `layer`}.
    The target is drawn bold with its interval, clipped to ± 1; all other targets are its baseline.
    """
    figure, panels = style.panels(1, len(curves), sharey=True, squeeze=False)
    first = next(iter(curves.values()))
    others = [name for name in first["target"].values.tolist() if name != target]
    colors = style.colors([*others, target])
    target_style = {"color": colors[target], "marker": "o", "lw": 3, "capsize": 3, "label": target}
    for axes, (title, curve) in zip(panels[0], curves.items()):
        for name in others:
            axes.plot(curve["layer"], curve["mean"].sel(target=name), color=colors[name], lw=1, label=name)
        target_curve = curve.sel(target=target).clip(-1, 1)
        style.interval(axes, target_curve["layer"], target_curve, **target_style)
        axes.axhline(0, color="black", lw=0.6)
        axes.set(xlabel="layer", title=f"{title} scores", xticks=target_curve["layer"].values)

    n = int(curve["n"].sel(target=target).max())
    title = f"Mean over {n} speakers"
    if n >= statistics.MIN_SPEAKERS:
        title += ", 95 % interval"
    panels[0, 0].set_ylabel("rank correlation over neurons")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", title="same clips,\ntarget")
    return figure
