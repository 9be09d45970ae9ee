from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from . import style


def layer_neuron_map(mean: xr.DataArray, selected: pd.DataFrame | None = None) -> Figure:
    """Plot the signed attribution of every neuron of every layer as an image.

    `mean` is as returned by `attribution.mean_score(…, by="signed")`. Each layer is divided by its largest absolute
    value, printed at the right, since layers differ in scale. Neurons in the table `selected`, as returned by
    `attribution.top_neurons`, are ringed.
    """
    if not isinstance(mean, xr.DataArray):
        raise ValueError(
            f"mean must be a DataArray [layer, neuron], not a {type(mean).__name__}: pass "
            'attribution.mean_score(scores, by="signed")'
        )
    mean = mean.transpose("layer", "neuron")
    peaks = np.abs(mean.values).max(axis=1)
    divisors = np.where(peaks > 0, peaks, 1)
    layers = mean["layer"].values
    figure, axes = style.panels(height=0.9 + 0.32 * len(layers))
    image = axes.imshow(mean.values / divisors[:, None], cmap=style.DIVERGING, vmin=-1, vmax=1)
    axes.set(xlabel="neuron", ylabel="layer", yticks=range(len(layers)), yticklabels=layers)
    for row, peak in enumerate(peaks):
        axes.text(mean.sizes["neuron"] + 0.2, row, f" {peak:.2g}", va="center", fontsize=8)
    if selected is not None:
        style.ring(axes, selected, layers)
    axes.set_title("Attribution of each neuron (right: maximum of the layer; ringed: selected)")
    figure.colorbar(image, ax=axes, pad=0.07, label="fraction of the layer's maximum")
    return figure
