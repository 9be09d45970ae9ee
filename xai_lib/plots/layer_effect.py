import numpy as np

from .. import results
from . import style


def layer_effect(sweep, layer, *, mode="flip", variable="delta", xlabel="change of the target's log-odds (nats)"):
    """One edited layer, or group: each speaker and each random draw, and the probabilities before and after.

    `sweep` is of `ablation.sweep`, `variable` "delta", "kl" or "changed".
    """
    row = style.edited(style.of_mode(sweep, variable, mode))
    if layer not in sweep[row]:
        raise ValueError(f"{row} {layer} is not in the sweep: there is {', '.join(map(str, sweep[row].values))}")
    here = sweep.sel({row: layer, "mode": mode})
    figure, (left, right) = style.panels(1, 2)
    effect, null = results.units(here[variable]), results.average(here[f"null_{variable}"])
    left.plot(effect, 1 + style.apart(effect.size, 0.2), "o", ms=5, alpha=0.6, color=style.COLORS[0])
    left.plot(effect.mean(), 1, "|", ms=26, mew=2.5, color=style.COLORS[0])
    left.plot(null, style.apart(null.size, 0.25), ".", color="#777777", alpha=0.7)
    rows = [f"chosen:\n{effect.dims[0]}s, mean"] + ["random:\ndraws"] * bool(null.size)
    left.set_yticks([1, 0][: len(rows)], rows)
    left.axvline(0, color="black", lw=0.6)
    left.set(xlabel=xlabel, ylim=(-0.6, 1.6), title=f"{row.capitalize()} {layer}, {mode}")
    at, colors = np.arange(sweep.sizes["label"]), style.colors(sweep["label"].values.tolist())
    right.barh(at - 0.2, results.average(here["clean_probability"]), 0.38, color=style.NULL_COLOR)
    right.barh(at + 0.2, results.average(here["probability"]), 0.38, color=list(colors.values()))
    right.set(xlabel="probability", xlim=(0, None), title="Grey: clean. Colour: edited")
    right.set_yticks(at, list(colors))
    right.invert_yaxis()
    return figure
