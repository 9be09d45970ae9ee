import numpy as np

from .. import statistics
from . import style

_NAMES = {"manner": "manner of articulation", "emotion": "emotion", "statement": "statement"}


def selectivity_scatter(result, neurons=None):
    """What each neuron varies with (`probes.selectivity`): phonetics across, emotion up, a dot a neuron, by layer.

    All shares are beyond chance, that is less the mean over shuffled labels. At the right the median neuron of each
    layer, with its interval over speakers from 8 up, and the middle half of the neurons. Neurons of the table `neurons`
    (`layer`, `neuron`) are ringed.
    """
    tasks = result["task"].values.tolist()
    if len(tasks) < 2:
        raise ValueError(f"a scatter needs phonetics and emotion, and there is only {tasks[0]}")
    names, shares = ([_NAMES[task] for task in tasks], result["excess"].transpose("task", "layer", "neuron"))
    layers = shares["layer"].values
    figure, (left, right) = style.panels(1, 2, height=4, width_ratios=[1.3, 1])
    order = np.random.default_rng(0).permutation(shares[0].size)  # so that no layer hides another
    colors = np.repeat(layers, shares.sizes["neuron"])[order]
    dots = left.scatter(*(one.values.ravel()[order] for one in shares), c=colors, s=9, alpha=0.7, lw=0)
    for row in () if neurons is None else neurons.itertuples():
        left.plot(*shares.sel(layer=row.layer, neuron=row.neuron), "o", ms=8, mfc="none", mec="black", mew=0.9)
    left.set(**{axis: f"{name}: share beyond chance (η²)" for axis, name in zip(("xlabel", "ylabel"), names)})
    left.set_title("Each neuron's variance within speakers")
    figure.colorbar(dots, ax=left, label="layer", ticks=layers)
    for name, task in zip(names, tasks):
        color = dict(zip(_NAMES, style.COLORS))[task]
        low, middle, high = np.nanquantile(shares.sel(task=task), [0.25, 0.5, 0.75], axis=1)
        right.fill_between(layers, low, high, color=color, alpha=0.2, lw=0)
        over = statistics.over_speakers(result["typical"].sel(task=task))
        if result.sizes["speaker"] < statistics.FEWEST:
            over["mean"] = "layer", middle
        style.interval(right, layers, over, color=color, marker="o", ms=5, label=name)
    right.axhline(0, color="black", lw=0.6)
    right.set(xlabel="layer", ylabel="share beyond chance (η²)", xticks=layers, title="Median neuron, and middle half")
    right.legend()
    return figure
