from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from . import style


def segment_map(response, neurons, waveform, sample_rate, *, name=""):
    """What each segment of one clip does to some neurons, under its waveform.

    Parameters
    ----------
    response : DataArray [segment, layer, neuron]
        One clip of `attribution.segment_response`.
    neurons : DataFrame with `layer` and `neuron`
        One row of the picture each, divided by its own greatest absolute value.
    waveform : array [time]
    name : str
        Of the clip, for the title.
    """
    response = response.dropna("segment", how="all")
    rows = np.stack([response.sel(layer=r.layer, neuron=r.neuron).values for r in neurons.itertuples()])
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12)
    end = len(waveform) / sample_rate
    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(style.WIDTH, 1.9 + 0.2 * len(rows)), height_ratios=[1, 0.6 + 0.18 * len(rows)]
    )
    above.plot(np.arange(len(waveform)) / sample_rate, waveform, color="#444444", lw=0.4)
    above.set(ylabel="amplitude", title=f"{name and name + ': '}what each neuron loses when a segment is replaced")
    edges = np.append(response["seconds"].values, end)
    image = below.pcolormesh(edges, np.arange(len(rows) + 1), rows, cmap=style.DIVERGING, vmin=-1, vmax=1)
    below.set(xlabel="time (s)", ylabel="layer : neuron", xlim=(0, end), yticks=np.arange(len(rows)) + 0.5)
    below.set_yticklabels([f"{r.layer} : {r.neuron}" for r in neurons.itertuples()], fontsize=8)
    below.invert_yaxis()
    figure.colorbar(image, ax=[above, below], label="share of the neuron's greatest")
    return figure
