from .. import statistics
from ..probing import linear_probes
from . import style

_NAMES = {"manner": "manner of articulation", "emotion": "emotion", "statement": "which statement"}


def layer_probes(result):
    """What linear probes read from each layer for unseen speakers (`probes.layer_probes`), beside their control tasks.

    Left: accuracy, open and dashed the control tasks, dotted chance. Right: their difference. Intervals over speakers
    from 8 up, and, but for the accuracy, over control tasks too; below that each speaker is a dot. Where a control
    cannot be learnt, neither it nor a difference is drawn.
    """
    figure, panels = style.panels(1, 2, width_ratios=[1.2, 1])
    layers, n = result["layer"].values, result.sizes["speaker"]
    for place, task in enumerate(result["task"].values.tolist()):
        one, color = result.sel(task=task), dict(zip(_NAMES, style.COLORS))[task]
        told = "" if one["control"].notnull().any() else " (no control task)"
        at = layers + 0.12 * (place - (result.sizes["task"] - 1) / 2)
        solid = {"color": color, "marker": "o", "ms": 5, "label": _NAMES[task] + told}
        hollow = {"color": color, "marker": "o", "ms": 4, "mfc": "white", "ls": "--", "lw": 1, "label": None}
        for axes, name, look in (
            (panels[0], "accuracy", solid),
            (panels[0], "control", hollow),
            (panels[1], "selectivity", solid),
        ):
            if n < statistics.FEWEST and name != "control":
                axes.plot(at, one[name].transpose("layer", "speaker"), ".", color=color, alpha=0.4, ms=4)
            if name == "accuracy":
                over = statistics.over_speakers(one[name])
            else:
                over = linear_probes.over_speakers_and_controls(one, name)
            style.interval(axes, at, over, **look)
        panels[0].axhline(float(one["chance"]), color=color, ls=":", lw=1)
    panels[0].set(ylim=(0, 1.02), ylabel="mean recall of the classes (0 to 1)")
    panels[1].axhline(0, color="black", lw=0.6)
    panels[1].set(ylabel="accuracy − control")
    for axes, title in zip(panels, ("Filled: accuracy; open: control; dotted: chance", "Selectivity")):
        axes.set(xlabel="layer", xticks=layers, title=title)
    many = ", 95 % intervals over them and over control tasks"
    told = f"{n} unseen speakers" + (many if n >= statistics.FEWEST else ", each a dot")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, title=told)
    return figure
