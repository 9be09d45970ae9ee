import numpy as np

from ..pruning.forgetting import random_sets
from . import style


def class_recalls(recalls, dose, *, forgotten):
    """Plot the recall of each class, mean over speakers: unpruned, without the selected, and without random neurons.

    `recalls` is as returned by `pruning.recalls`, `dose` is one of its numbers of neurons; the `forgotten` class is put
    first. Raise ValueError for a dose or a class that `recalls` does not have.
    """
    if dose not in recalls["dose"].values:
        raise ValueError(f"no result for {dose} neurons: the doses are {recalls['dose'].values.tolist()}; choose one")
    if forgotten not in recalls["label"].values:
        raise ValueError(
            f"there are no clips of {forgotten!r}: the classes are {', '.join(recalls['label'].values)}; choose one"
        )
    names = sorted(recalls["label"].values, key=lambda name: name != forgotten)
    mean_recalls = recalls.mean("speaker").sel(label=names)
    positions, colors = np.arange(len(names)), style.colors(names)
    random = random_sets(mean_recalls.sel(dose=dose))
    figure, ax = style.panels()
    options = {"width": 0.25, "edgecolor": "black", "lw": 0.8}
    ax.bar(
        positions - 0.27, mean_recalls.sel(dose=0, neuron_set="selected"), color="white", label="unpruned", **options
    )
    if random.sizes["neuron_set"]:
        label = "random neurons pruned (line: range)"
        ax.bar(positions, random.mean("neuron_set"), color=style.RANDOM_COLOR, label=label, **options)
        ax.vlines(positions, random.min("neuron_set"), random.max("neuron_set"), color="black", lw=1.2)
    after, label = mean_recalls.sel(dose=dose, neuron_set="selected"), "selected neurons pruned"
    ax.bar(positions + 0.27, after, color=list(colors.values()), label=label, **options)
    ax.set_xticks(positions, names, **({} if len(names) < 9 else {"rotation": 30, "ha": "right"}))
    ax.set(ylabel="recall, mean over speakers", xlabel="class (the first is the one to forget)", ylim=(0, 1.02))
    ax.set_title(f"{dose} neurons pruned")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
