import numpy as np

from .. import statistics
from ..pruning import forgetting
from ..pruning.forgetting import random_sets
from . import style


def class_changes(compared, dose, *, forgotten, measure="logit", units="speakers"):
    """What each class's own clips get before and after pruning, and with random neurons pruned; by what they get before.

    `compared` is of `pruning.compare`, `dose` one of its numbers of neurons, `measure` "logit", "probability" or
    "accuracy". The `forgotten` class is marked, wherever it stands. `units` is what the axis calls the speakers, who
    are drawn one by one where they are too few for an interval.
    """
    found = forgetting.by_class(compared, measure)
    if dose not in found["dose"].values:
        raise ValueError(f"{dose} neurons were not tried: the doses are {found['dose'].values.tolist()}")
    if forgotten not in found["label"].values:
        raise ValueError(f"there are no clips of {forgotten!r}: the classes are {', '.join(found['label'].values)}")
    before = found.sel(dose=0, who="chosen").mean("speaker")
    found = found.isel(label=np.argsort(-before.values, kind="stable"))
    names, over = found["label"].values, statistics.over_speakers(found)
    at, mark = np.arange(len(names)), names == forgotten
    figure, ax = style.panels(height=4.0)
    random = random_sets(over["mean"].sel(dose=dose))
    if random.sizes["who"]:
        look = {"color": style.NULL_COLOR, "lw": 7, "label": "random neurons pruned (range)"}
        ax.vlines(at, random.min("who"), random.max("who"), **look)
    sides = ((0, -0.12, "o", "white", "as it is"), (dose, 0.12, "s", style.COLORS[0], f"{dose} chosen neurons pruned"))
    for at_dose, shift, marker, face, label in sides:
        here, look = over.sel(dose=at_dose, who="chosen"), {"ls": "", "marker": marker, "ms": 6, "mec": "black"}
        style.interval(ax, at + shift, here, color="black", mfc=face, label=label, **look)
        alone = found.sel(dose=at_dose, who="chosen").where(here["n"] < statistics.FEWEST).transpose("label", "speaker")
        ax.plot(at + 2 * shift, alone, ls="", marker=marker, ms=3, color="#555555", mfc=face, alpha=0.6)
        ax.plot(at[mark] + shift, here["mean"].values[mark], mfc=style.COLORS[1] if at_dose else face, zorder=4, **look)
    ax.set_xticks(at, names, rotation=30, ha="right")
    for tick, own in zip(ax.get_xticklabels(), mark):
        tick.set(color=style.COLORS[1] if own else "black", fontweight="bold" if own else "normal")
    ax.set(ylabel=f"own class's {measure}, mean over {units}")
    few = bool((over["n"].sel(dose=0, who="chosen") < statistics.FEWEST).any())
    ax.set_title(f"To forget: {forgotten}" + (f" (small: single {units}, too few for an interval)" if few else ""))
    figure.legend(loc="outside lower center", ncols=3)
    return figure
