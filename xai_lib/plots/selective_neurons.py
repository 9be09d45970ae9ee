import numpy as np

from . import style


def selective_neurons(selective, *, level=0.05):
    """Share of each layer's neurons that tell a label from the rest, by the label told best: `dissection.selectivity`.

    Bars upwards are neurons more active for the label than for the others, bars downwards less active.
    """
    figure, ax = style.panels()
    mean = selective["mean"].transpose("layer", "neuron", "concept")
    apart = np.abs(mean - 0.5).where(selective["q"] < level, -1.0)
    best, found = apart.argmax("concept"), apart.max("concept") > 0
    more = mean.isel(concept=best) > 0.5
    layers = range(mean.sizes["layer"])
    for sign, side in ((1, more), (-1, ~more)):
        bottom = np.zeros(len(layers))
        for j, (name, color) in enumerate(style.colors(mean["concept"].values).items()):
            share = sign * 100 * (found & side & (best == j)).mean("neuron").values
            label = name if sign > 0 else None
            ax.bar(layers, share, 0.7, bottom=bottom, color=color, edgecolor="white", label=label)
            bottom += share
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(layers, mean["layer"].values)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set(xlabel="layer", ylabel="← less active | more active →\nshare of neurons (%)")
    ax.set_title(f"Neurons that tell a label from the rest (false discovery rate {level:g})")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
