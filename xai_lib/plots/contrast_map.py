import numpy as np

from . import style

_EFFECTS = {"cohens_d": ("Cohen's d", 0), "auroc": ("AUROC", 0.5), "difference": ("difference of activations", 0)}


def contrast_map(contrast, chosen=None, *, variable="cohens_d", level=0.05):
    """How far every neuron of every layer tells one kind of clip from another, and how many of a layer do.

    `contrast` is of `contrasts.activation_contrast` or `compare`, `variable` "cohens_d", "auroc" or "difference".
    Neurons with q ≥ `level` are pale. Those of the table `chosen` (`attribution.top_neurons`) are ringed.
    """
    contrast, (label, chance) = contrast.transpose("layer", "neuron"), _EFFECTS[variable]
    layers, q, about = contrast["layer"].values, contrast["q"], contrast.attrs
    away, told, tested = contrast[variable] - chance, q < level, bool(q.notnull().any())
    figure, (axes, beside) = style.panels(1, 2, height=1.5 + 0.3 * len(layers), width_ratios=(5, 1), sharey=True)
    most, strength = float(np.abs(away).max()), np.where(told | (not tested), 1, 0.25)
    limits = {"vmin": chance - most, "vmax": chance + most}
    image = axes.imshow(contrast[variable].values, cmap=style.DIVERGING, alpha=strength, **limits)
    axes.set(xlabel="neuron", ylabel="layer", yticks=range(len(layers)), yticklabels=layers)
    if chosen is not None:
        rows = [list(layers).index(layer) for layer in chosen["layer"]]
        axes.scatter(chosen["neuron"], rows, s=46, facecolors="none", edgecolors="black", linewidths=0.9)
    for side, shade in ((1, 0.9), (-1, 0.1)):
        share = 100 * (told & (side * away > 0)).mean("neuron")
        beside.barh(range(len(layers)), side * share, color=image.cmap(shade))
    beside.axvline(0, color="black", lw=0.6)
    beside.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    beside.set_xlabel("less | more active\n(% of neurons)")
    beside.set_visible(tested)
    n = about["speakers_a"] if about["paired"] else f"{about['speakers_a']} against {about['speakers_b']}"
    how = f"pale, not counted: q ≥ {level:g}" if tested else "too few for a test"
    title = f"{about['a']} against {about['b']}: {n} speakers ({how})\nclips that agree in {about['cell']}"
    axes.set_title(title, parse_math=False)
    figure.colorbar(image, ax=axes, label=label, location="left", pad=0.02)
    return figure
