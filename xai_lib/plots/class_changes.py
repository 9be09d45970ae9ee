import numpy as np

from .. import statistics
from ..pruning import forgetting
from ..pruning.forgetting import random_sets
from . import style


def class_changes(compared, dose, *, forgotten, measure="logit", units="speakers"):
    """Plot a measure of the true class before and after pruning, and with random neurons pruned, class by class.

    `compared` is as returned by `pruning.compare`, `dose` one of its numbers of neurons, `measure` "logit",
    "probability" or "accuracy". Classes are sorted by the value before pruning; the `forgotten` class is marked.
    `units` is the axis label's word for speakers, who are drawn one by one where they are too few for an interval.
    Raise ValueError for a dose or a class that `compared` does not have.
    """
    values = forgetting.by_class(compared, measure)
    if dose not in values["dose"].values:
        raise ValueError(f"no result for {dose} neurons: the doses are {values['dose'].values.tolist()}; choose one")
    if forgotten not in values["label"].values:
        raise ValueError(
            f"there are no clips of {forgotten!r}: the classes are {', '.join(values['label'].values)}; choose one"
        )
    before = values.sel(dose=0, neuron_set="selected").mean("speaker")
    values = values.isel(label=np.argsort(-before.values, kind="stable"))
    names, summary = values["label"].values, statistics.over_speakers(values)
    positions, is_forgotten = np.arange(len(names)), names == forgotten
    figure, ax = style.panels(height=4.0)
    random = random_sets(summary["mean"].sel(dose=dose))
    if random.sizes["neuron_set"]:
        options = {"color": style.RANDOM_COLOR, "lw": 7, "label": "random neurons pruned (range)"}
        ax.vlines(positions, random.min("neuron_set"), random.max("neuron_set"), **options)
    conditions = (
        (0, -0.12, "o", "white", "unpruned"),
        (dose, 0.12, "s", style.COLORS[0], f"{dose} selected neurons pruned"),
    )
    for at_dose, shift, marker, fill, label in conditions:
        interval = summary.sel(dose=at_dose, neuron_set="selected")
        options = {"ls": "", "marker": marker, "ms": 6, "mec": "black"}
        style.interval(ax, positions + shift, interval, color="black", mfc=fill, label=label, **options)
        speaker_values = (
            values.sel(dose=at_dose, neuron_set="selected")
            .where(interval["n"] < statistics.MIN_SPEAKERS)
            .transpose("label", "speaker")
        )
        ax.plot(positions + 2 * shift, speaker_values, ls="", marker=marker, ms=3, color="#555555", mfc=fill, alpha=0.6)
        ax.plot(
            positions[is_forgotten] + shift,
            interval["mean"].values[is_forgotten],
            mfc=style.COLORS[1] if at_dose else fill,
            zorder=4,
            **options,
        )
    ax.set_xticks(positions, names, rotation=30, ha="right")
    for tick, highlighted in zip(ax.get_xticklabels(), is_forgotten):
        tick.set(color=style.COLORS[1] if highlighted else "black", fontweight="bold" if highlighted else "normal")
    ax.set(ylabel=f"{measure} of the true class, mean over {units}")
    few = bool((summary["n"].sel(dose=0, neuron_set="selected") < statistics.MIN_SPEAKERS).any())
    ax.set_title(f"To forget: {forgotten}" + (f" (small: single {units}, too few for an interval)" if few else ""))
    figure.legend(loc="outside lower center", ncols=3)
    return figure
