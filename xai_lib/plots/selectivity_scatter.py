import numpy as np

from .. import statistics
from . import style

_NAMES = {"manner": "manner of articulation", "emotion": "emotion", "statement": "statement"}


def selectivity_scatter(result, neurons=None):
    """Plot the share of each neuron's variance that goes with phonetics (x) and emotion (y), coloured by layer.

    `result` is as returned by `variance_explained.selectivity`. All shares are relative to the chance level, the mean
    over shuffled labels. Right: the median neuron of each layer, with its interval over speakers from 8 up, and the
    interquartile range of the neurons. Neurons in the table `neurons` (`layer`, `neuron`) are ringed. Raise ValueError
    if the result has fewer than two tasks.
    """
    tasks = result["task"].values.tolist()
    if len(tasks) < 2:
        raise ValueError(f"a scatter plot needs two tasks, phonetics and emotion, and the result has only {tasks[0]}")
    names, shares = ([_NAMES[task] for task in tasks], result["excess"].transpose("task", "layer", "neuron"))
    layers = shares["layer"].values
    figure, (scatter_axes, layer_axes) = style.panels(1, 2, height=4, width_ratios=[1.3, 1])
    order = np.random.default_rng(0).permutation(shares[0].size)  # so that no layer hides another
    colors = np.repeat(layers, shares.sizes["neuron"])[order]
    dots = scatter_axes.scatter(
        *(task_shares.values.ravel()[order] for task_shares in shares), c=colors, s=9, alpha=0.7, lw=0
    )
    for row in () if neurons is None else neurons.itertuples():
        scatter_axes.plot(*shares.sel(layer=row.layer, neuron=row.neuron), "o", ms=8, mfc="none", mec="black", mew=0.9)
    scatter_axes.set(**{axis: f"{name}: share beyond chance (η²)" for axis, name in zip(("xlabel", "ylabel"), names)})
    scatter_axes.set_title("Each neuron's variance within speakers")
    figure.colorbar(dots, ax=scatter_axes, label="layer", ticks=layers)
    for name, task in zip(names, tasks):
        color = dict(zip(_NAMES, style.COLORS))[task]
        low, middle, high = np.nanquantile(shares.sel(task=task), [0.25, 0.5, 0.75], axis=1)
        layer_axes.fill_between(layers, low, high, color=color, alpha=0.2, lw=0)
        interval = statistics.over_speakers(result["typical"].sel(task=task))
        if result.sizes["speaker"] < statistics.MIN_SPEAKERS:
            interval["mean"] = "layer", middle
        style.interval(layer_axes, layers, interval, color=color, marker="o", ms=5, label=name)
    layer_axes.axhline(0, color="black", lw=0.6)
    layer_axes.set(
        xlabel="layer", ylabel="share beyond chance (η²)", xticks=layers, title="Median neuron, interquartile range"
    )
    layer_axes.legend()
    return figure
