from .. import statistics
from ..probing import linear_probes
from . import style

_NAMES = {"manner": "manner of articulation", "emotion": "emotion", "statement": "which statement"}


def layer_probes(result):
    """Plot the accuracy of linear probes of each layer for unseen speakers, beside their control tasks.

    `result` is as returned by `linear_probes.layer_probes`. Left: accuracy; open and dashed: control tasks; dotted:
    chance level. Right: accuracy − control. Intervals are over speakers, from 8 up, and except for the accuracy over
    control tasks too; with fewer, each speaker is a dot. Where a control cannot be learnt, neither it nor a difference
    is drawn.
    """
    figure, panels = style.panels(1, 2, width_ratios=[1.2, 1])
    layers, n = result["layer"].values, result.sizes["speaker"]
    for index, task in enumerate(result["task"].values.tolist()):
        task_result, color = result.sel(task=task), dict(zip(_NAMES, style.COLORS))[task]
        control_note = "" if task_result["control"].notnull().any() else " (no control task)"
        positions = layers + 0.12 * (index - (result.sizes["task"] - 1) / 2)
        filled_style = {"color": color, "marker": "o", "ms": 5, "label": _NAMES[task] + control_note}
        open_style = {"color": color, "marker": "o", "ms": 4, "mfc": "white", "ls": "--", "lw": 1, "label": None}
        for axes, name, options in (
            (panels[0], "accuracy", filled_style),
            (panels[0], "control", open_style),
            (panels[1], "selectivity", filled_style),
        ):
            if n < statistics.MIN_SPEAKERS and name != "control":
                axes.plot(positions, task_result[name].transpose("layer", "speaker"), ".", color=color, alpha=0.4, ms=4)
            if name == "accuracy":
                interval = statistics.over_speakers(task_result[name])
            else:
                interval = linear_probes.over_speakers_and_controls(task_result, name)
            style.interval(axes, positions, interval, **options)
        panels[0].axhline(float(task_result["chance"]), color=color, ls=":", lw=1)
    panels[0].set(ylim=(0, 1.02), ylabel="mean recall of the classes (0 to 1)")
    panels[1].axhline(0, color="black", lw=0.6)
    panels[1].set(ylabel="accuracy − control")
    for axes, title in zip(panels, ("Filled: accuracy; open: control; dotted: chance", "Selectivity")):
        axes.set(xlabel="layer", xticks=layers, title=title)
    interval_note = ", 95 % intervals over them and over control tasks"
    speaker_note = f"{n} unseen speakers" + (interval_note if n >= statistics.MIN_SPEAKERS else ", each a dot")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, title=speaker_note)
    return figure
