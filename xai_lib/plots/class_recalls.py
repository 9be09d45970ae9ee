import numpy as np

from ..pruning.forgetting import random_sets
from . import style


def class_recalls(recalls, dose, *, forgotten):
    """Recall of each class, mean over speakers: the model as it is, without the chosen neurons, without random ones.

    `recalls` are of `pruning.recalls`, `dose` is one of its numbers of neurons; the `forgotten` class is put first.
    """
    if dose not in recalls["dose"].values:
        raise ValueError(f"{dose} neurons were not tried: the doses are {recalls['dose'].values.tolist()}")
    if forgotten not in recalls["label"].values:
        raise ValueError(f"there are no clips of {forgotten!r}: the classes are {', '.join(recalls['label'].values)}")
    names = sorted(recalls["label"].values, key=lambda name: name != forgotten)
    by, at, colors = recalls.mean("speaker").sel(label=names), np.arange(len(names)), style.colors(names)
    random = random_sets(by.sel(dose=dose))
    figure, ax = style.panels()
    look = {"width": 0.25, "edgecolor": "black", "lw": 0.8}
    ax.bar(at - 0.27, by.sel(dose=0, who="chosen"), color="white", label="as it is", **look)
    if random.sizes["who"]:
        text = "random neurons pruned (line: range)"
        ax.bar(at, random.mean("who"), color=style.NULL_COLOR, label=text, **look)
        ax.vlines(at, random.min("who"), random.max("who"), color="black", lw=1.2)
    after, text = by.sel(dose=dose, who="chosen"), "chosen neurons pruned"
    ax.bar(at + 0.27, after, color=list(colors.values()), label=text, **look)
    ax.set_xticks(at, names, **({} if len(names) < 9 else {"rotation": 30, "ha": "right"}))
    ax.set(ylabel="recall, mean over speakers", xlabel="class (the first is the one to forget)", ylim=(0, 1.02))
    ax.set_title(f"{dose} neurons pruned")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
