from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from . import style


def word_map(described, *, least=1.96):
    """Share of each layer's neurons whose description says a word, or denies it, beside the shuffled control.

    Parameters
    ----------
    described : Dataset
        Of `dissection.describe`.
    """
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(style.WIDTH, 4.2))
    said = [(described["z"] >= least, described["null"] >= least), (described["z"] <= -least, described["null"] <= -least)]
    tables = [xr.concat([z.mean("neuron"), null.mean(("draw", "neuron")).mean("layer").expand_dims(layer=[-1])], "layer")
              for z, null in said]  # fmt: skip
    order = np.argsort(-tables[0].isel(layer=slice(0, -1)).mean("layer").values, kind="stable")
    top = max(float(table.max()) for table in tables)
    for ax, table, title in zip(axes, tables, ("says the word", "denies it")):
        values = 100 * table.isel(word=order).transpose("word", "layer").values
        image = ax.imshow(values, vmin=0, vmax=100 * max(top, 0.01))
        for (i, j), value in np.ndenumerate(values):
            dark = value < 50 * top
            ax.text(j, i, f"{value:.0f}", ha="center", va="center", size=7, color="white" if dark else "black")
        ax.axvline(values.shape[1] - 1.5, color="white", lw=4)
        ax.set_xticks(range(values.shape[1]), [*map(str, table["layer"].values[:-1]), "shuffled"])
        ax.set_yticks(range(len(order)), table["word"].values[order])
        ax.set(xlabel="layer", title=f"The description {title}")
    figure.colorbar(image, ax=axes, label="share of neurons (%)")
    return figure
