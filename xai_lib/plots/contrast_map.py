import numpy as np

from . import style

_EFFECTS = {"cohens_d": ("Cohen's d", 0), "auroc": ("AUROC", 0.5), "difference": ("difference of activations", 0)}


def contrast_map(contrast, selected=None, *, variable="cohens_d", level=0.05):
    """Plot how far every neuron of every layer distinguishes two kinds of clips, and the share of each layer that does.

    `contrast` is as returned by `attribution.activation_contrast` or `attribution.compare`, `variable` is "cohens_d",
    "auroc" or "difference". Neurons with q ≥ `level` are pale. Those in the table `selected` (as returned by
    `attribution.top_neurons`) are ringed.
    """
    contrast, (label, chance) = contrast.transpose("layer", "neuron"), _EFFECTS[variable]
    layers, q, info = contrast["layer"].values, contrast["q"], contrast.attrs
    deviation, significant, tested = contrast[variable] - chance, q < level, bool(q.notnull().any())
    figure, (axes, share_axes) = style.panels(1, 2, height=1.5 + 0.3 * len(layers), width_ratios=(5, 1), sharey=True)
    largest, opacity = float(np.abs(deviation).max()), np.where(significant | (not tested), 1, 0.25)
    limits = {"vmin": chance - largest, "vmax": chance + largest}
    image = axes.imshow(contrast[variable].values, cmap=style.DIVERGING, alpha=opacity, **limits)
    axes.set(xlabel="neuron", ylabel="layer", yticks=range(len(layers)), yticklabels=layers)
    if selected is not None:
        rows = [list(layers).index(layer) for layer in selected["layer"]]
        axes.scatter(selected["neuron"], rows, s=46, facecolors="none", edgecolors="black", linewidths=0.9)
    for side, shade in ((1, 0.9), (-1, 0.1)):
        share = 100 * (significant & (side * deviation > 0)).mean("neuron")
        share_axes.barh(range(len(layers)), side * share, color=image.cmap(shade))
    share_axes.axvline(0, color="black", lw=0.6)
    share_axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    share_axes.set_xlabel("less | more active\n(% of neurons)")
    share_axes.set_visible(tested)
    n = info["speakers_a"] if info["paired"] else f"{info['speakers_a']} against {info['speakers_b']}"
    test_note = f"pale, not counted: n.s., q ≥ {level:g}" if tested else "too few for a test"
    title = f"{info['a']} against {info['b']}: {n} speakers ({test_note})\nclips that agree in {info['cell']}"
    axes.set_title(title, parse_math=False)
    figure.colorbar(image, ax=axes, label=label, location="left", pad=0.02)
    return figure
