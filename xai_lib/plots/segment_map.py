import numpy as np

from . import style


def segment_map(response, neurons, waveform, sample_rate, *, name=""):
    """What each segment of one clip (of `attribution.segment_response`) does to some neurons, under its waveform.

    The table `neurons` has the columns `layer` and `neuron`, each a row of the picture, divided by its own greatest
    absolute value, which stands beside it in brackets. `name` is the clip's, for the title.
    """
    response = response.dropna("segment", how="all")
    rows = np.stack([response.sel(layer=r.layer, neuron=r.neuron).values for r in neurons.itertuples()])
    greatest = np.abs(rows).max(axis=1)
    rows = rows / np.maximum(greatest, 1e-12)[:, None]
    height, ratios = 1.9 + 0.2 * len(rows), [1, 0.6 + 0.18 * len(rows)]
    figure, (above, below) = style.panels(2, height=height, sharex=True, height_ratios=ratios)
    style.waveform(above, waveform, sample_rate)
    above.set_title(f"{name and name + ': '}what each neuron loses when a segment is replaced")
    edges = np.append(response["seconds"].values, len(waveform) / sample_rate)
    image = below.pcolormesh(edges, np.arange(len(rows) + 1), rows, cmap=style.DIVERGING, vmin=-1, vmax=1)
    below.set(xlabel="time (s)", ylabel="layer : neuron (±1 stands for)", yticks=np.arange(len(rows)) + 0.5)
    labels = [f"{r.layer} : {r.neuron}  (±{most:.2g})" for r, most in zip(neurons.itertuples(), greatest)]
    below.set_yticklabels(labels, fontsize=8)
    below.invert_yaxis()
    figure.colorbar(image, ax=[above, below], label="share of the neuron's greatest")
    return figure
