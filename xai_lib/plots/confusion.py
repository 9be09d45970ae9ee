"""Which emotions are taken for which."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from . import style


def confusion(counts, *, title=None) -> plt.Figure:
    """Confusion matrix: colour is the share of the row, the number the clips.

    Parameters
    ----------
    counts : DataFrame
        Clips by true label (rows) and the model's label (columns).
    title : str, optional

    Returns
    -------
    Figure
    """
    n = counts.to_numpy()
    share = n / np.maximum(n.sum(axis=1, keepdims=True), 1)
    rows, columns = n.shape
    figure, axis = plt.subplots(figsize=(0.62 * columns + 2.2, 0.46 * rows + 1.8), layout="constrained")
    image = axis.imshow(share, vmin=0, vmax=1, cmap=style.SEQUENTIAL, aspect="auto")
    for i, j in zip(*np.nonzero(n)):
        axis.text(j, i, f"{n[i, j]:g}", ha="center", va="center", color="black" if share[i, j] > 0.5 else "white")
    axis.set(xticks=range(columns), yticks=range(rows), xlabel="the model's label", ylabel="true label")
    axis.set_xticklabels(counts.columns, rotation=35, ha="right", parse_math=False)
    axis.set_yticklabels(counts.index, parse_math=False)
    axis.spines[:].set_visible(False)
    axis.set_title(title or "")
    figure.colorbar(image, ax=axis, label="share of the true label")
    return figure
