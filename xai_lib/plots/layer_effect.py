from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import ablation, results
from . import style


def layer_effect(
    sweep: xr.Dataset,
    layer: int | str,
    *,
    mode: str = "flip",
    variable: str = "target_change",
    xlabel: str = "change of the target's log-odds (nats)",
) -> Figure:
    """Plot one edited layer, or group: each speaker, each random set, and the probabilities before and after.

    `sweep` is as returned by `ablation.sweep`, `variable` is "target_change", "kl" or "changed". Raise ValueError if
    the sweep does not have the layer or the mode.
    """
    row = style.edited(style.of_mode(sweep, variable, mode))
    if layer not in sweep[row]:
        available = ", ".join(str(name) for name in sweep[row].values)
        raise ValueError(f"{row} {layer} is not in the sweep: choose from {available}")
    condition = sweep.sel({row: layer, "mode": mode})
    figure, (effect_axes, probability_axes) = style.panels(1, 2)
    effect = results.units(ablation.selected_values(condition[variable]))
    random_effect = results.average(ablation.control_values(condition[variable], "random"))
    _draw_effect(effect_axes, effect, random_effect)
    effect_axes.set(xlabel=xlabel, ylim=(-0.6, 1.6), title=f"{row.capitalize()} {layer}, {mode}")
    _draw_probabilities(probability_axes, condition)
    return figure


def _draw_effect(axes, effect, random_effect):
    """Draw the effect on each speaker and its mean above that of each random set."""
    color = style.COLORS[0]
    axes.plot(effect, 1 + style.apart(effect.size, 0.2), "o", ms=5, alpha=0.6, color=color)
    axes.plot(effect.mean(), 1, "|", ms=26, mew=2.5, color=color)
    axes.plot(random_effect, style.apart(random_effect.size, 0.25), ".", color="#777777", alpha=0.7)
    name = f"selected:\n{effect.dims[0]}s, mean"
    if random_effect.size:
        axes.set_yticks([1, 0], [name, "random:\nsets"])
    else:
        axes.set_yticks([1], [name])
    axes.axvline(0, color="black", lw=0.6)


def _draw_probabilities(axes, condition):
    """Draw the probability of each class, clean and edited."""
    colors = style.colors(condition["label"].values.tolist())
    positions = np.arange(len(colors))
    clean = results.average(condition["clean_probability"])
    edited = results.average(ablation.selected_values(condition["probability"]))
    axes.barh(positions - 0.2, clean, 0.38, color=style.RANDOM_COLOR)
    axes.barh(positions + 0.2, edited, 0.38, color=list(colors.values()))
    axes.set(xlabel="probability", xlim=(0, None), title="Grey: clean. Colour: edited")
    axes.set_yticks(positions, list(colors))
    axes.invert_yaxis()
