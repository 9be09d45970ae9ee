import numpy as np

from . import style


def selective_neurons(selective, *, level=0.05):
    """Plot the share of each layer's neurons that distinguish a label from the rest, by their best label.

    `selective` is as returned by `dissection.selectivity`; neurons with q < `level` count. Upward bars: neurons more
    active for the label than for the others; downward bars: less active.
    """
    figure, ax = style.panels()
    mean = selective["mean"].transpose("layer", "neuron", "concept")
    deviation = np.abs(mean - 0.5).where(selective["q"] < level, -1.0)
    best, significant = deviation.argmax("concept"), deviation.max("concept") > 0
    more_active = mean.isel(concept=best) > 0.5
    layers = range(mean.sizes["layer"])
    for sign, direction in ((1, more_active), (-1, ~more_active)):
        bottom = np.zeros(len(layers))
        for j, (name, color) in enumerate(style.colors(mean["concept"].values).items()):
            share = sign * 100 * (significant & direction & (best == j)).mean("neuron").values
            label = name if sign > 0 else None
            ax.bar(layers, share, 0.7, bottom=bottom, color=color, edgecolor="white", label=label)
            bottom += share
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(layers, mean["layer"].values)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set(xlabel="layer", ylabel="← less active | more active →\nshare of neurons (%)")
    ax.set_title(f"Neurons that distinguish a label from the rest (false discovery rate {level:g})")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
