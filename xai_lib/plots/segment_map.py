from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from . import style


def segment_map(
    response: xr.DataArray, neurons: pd.DataFrame, waveform: np.ndarray, sample_rate: int, *, name: str = ""
) -> Figure:
    """Plot the effect of each segment of one clip on some neurons, below its waveform.

    `response` is one clip of the result of `attribution.segment_response`. The table `neurons` has the columns `layer`
    and `neuron`; each neuron is a row of the image, divided by its largest absolute value, which is printed beside it
    in brackets. `name` is the clip's name, for the title.
    """
    response = response.dropna("segment", how="all")
    rows = []
    labels = []
    for row in neurons.itertuples():
        values = response.sel(layer=row.layer, neuron=row.neuron).values
        peak = np.abs(values).max()
        rows.append(values / np.maximum(peak, 1e-12))
        labels.append(f"{row.layer} : {row.neuron}  (±{peak:.2g})")

    height = 1.9 + 0.2 * len(rows)
    ratios = [1, 0.6 + 0.18 * len(rows)]
    figure, (waveform_axes, map_axes) = style.panels(2, height=height, sharex=True, height_ratios=ratios)
    style.waveform(waveform_axes, waveform, sample_rate)
    title = "activation lost when a segment is replaced"
    waveform_axes.set_title(f"{name}: {title}" if name else title)
    edges = np.append(response["seconds"].values, len(waveform) / sample_rate)
    image = map_axes.pcolormesh(edges, np.arange(len(rows) + 1), rows, cmap=style.DIVERGING, vmin=-1, vmax=1)
    map_axes.set(xlabel="time (s)", ylabel="layer : neuron (value at ±1)", yticks=np.arange(len(rows)) + 0.5)
    map_axes.set_yticklabels(labels, fontsize=8)
    map_axes.invert_yaxis()
    figure.colorbar(image, ax=[waveform_axes, map_axes], label="fraction of the neuron's maximum")
    return figure
