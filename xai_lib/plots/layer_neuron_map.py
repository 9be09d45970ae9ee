import numpy as np

from . import style


def layer_neuron_map(mean, chosen=None):
    """Signed attribution of every neuron of every layer (`attribution.mean_score(…, by="signed")`), as a picture.

    Each layer is divided by its own greatest absolute value, printed at the right, since layers differ in scale.
    Neurons of the table `chosen` (`attribution.top_neurons`) are ringed.
    """
    mean = mean.transpose("layer", "neuron")
    peak = np.abs(mean.values).max(axis=1)
    layers = mean["layer"].values
    figure, axes = style.panels(height=0.9 + 0.32 * len(layers))
    image = axes.imshow(mean.values / np.where(peak > 0, peak, 1)[:, None], cmap=style.DIVERGING, vmin=-1, vmax=1)
    axes.set(xlabel="neuron", ylabel="layer", yticks=range(len(layers)), yticklabels=layers)
    for row, value in enumerate(peak):
        axes.text(mean.sizes["neuron"] + 0.2, row, f" {value:.2g}", va="center", fontsize=8)
    if chosen is not None:
        rows = [list(layers).index(layer) for layer in chosen["layer"]]
        axes.scatter(chosen["neuron"], rows, s=46, facecolors="none", edgecolors="black", linewidths=0.9)
    axes.set_title("Attribution of each neuron (right: a layer's greatest; ringed: chosen)")
    figure.colorbar(image, ax=axes, pad=0.07, label="share of the layer's greatest")
    return figure
