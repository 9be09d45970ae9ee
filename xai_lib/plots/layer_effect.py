import numpy as np

from .. import ablation, results
from . import style


def layer_effect(
    sweep, layer, *, mode="flip", variable="target_change", xlabel="change of the target's log-odds (nats)"
):
    """Plot one edited layer, or group: each speaker, each random set, and the probabilities before and after.

    `sweep` is as returned by `ablation.sweep`, `variable` is "target_change", "kl" or "changed". Raise ValueError if
    the sweep does not have the layer or the mode.
    """
    row = style.edited(style.of_mode(sweep, variable, mode))
    if layer not in sweep[row]:
        raise ValueError(f"{row} {layer} is not in the sweep: choose from {', '.join(map(str, sweep[row].values))}")
    condition = sweep.sel({row: layer, "mode": mode})
    figure, (effect_axes, probability_axes) = style.panels(1, 2)
    effect = results.units(ablation.selected_values(condition[variable]))
    random_effect = results.average(ablation.control_values(condition[variable], "random"))
    effect_axes.plot(effect, 1 + style.apart(effect.size, 0.2), "o", ms=5, alpha=0.6, color=style.COLORS[0])
    effect_axes.plot(effect.mean(), 1, "|", ms=26, mew=2.5, color=style.COLORS[0])
    effect_axes.plot(random_effect, style.apart(random_effect.size, 0.25), ".", color="#777777", alpha=0.7)
    rows = [f"selected:\n{effect.dims[0]}s, mean"] + ["random:\nsets"] * bool(random_effect.size)
    effect_axes.set_yticks([1, 0][: len(rows)], rows)
    effect_axes.axvline(0, color="black", lw=0.6)
    effect_axes.set(xlabel=xlabel, ylim=(-0.6, 1.6), title=f"{row.capitalize()} {layer}, {mode}")
    positions, colors = np.arange(sweep.sizes["label"]), style.colors(sweep["label"].values.tolist())
    probability_axes.barh(
        positions - 0.2, results.average(condition["clean_probability"]), 0.38, color=style.RANDOM_COLOR
    )
    probability_axes.barh(positions + 0.2, results.average(ablation.selected_values(condition["probability"])), 0.38, color=list(colors.values()))
    probability_axes.set(xlabel="probability", xlim=(0, None), title="Grey: clean. Colour: edited")
    probability_axes.set_yticks(positions, list(colors))
    probability_axes.invert_yaxis()
    return figure
