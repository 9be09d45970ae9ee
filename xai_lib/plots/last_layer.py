from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from . import style


def last_layer(named):
    """Which concept fits each of the classifier's outputs, whose right names are known.

    Parameters
    ----------
    named : dict of str to Dataset
        {title: of `dissection.identify` on `logit`}. Frames mark the right name, dots the one that was given.
    """
    figure, axes = plt.subplots(1, len(named), figsize=(style.WIDTH, 4.4), squeeze=False, sharey=True)
    for ax, (title, result) in zip(axes[0], named.items()):
        score = result["score"].transpose("target", "concept")
        targets, concepts = score["target"].values, score["concept"].values
        # A concept that fits everything well says nothing: rows are compared, so each row is centred and scaled.
        shown = (score - score.mean("concept")) / score.std("concept")
        ax.imshow(shown.values, cmap=style.DIVERGING, vmin=-2.5, vmax=2.5)
        for i, target in enumerate(targets):
            ax.plot(list(concepts).index(result["name"].values[i]), i, "o", color="black", ms=6)
            for j in np.flatnonzero(concepts == target):
                ax.add_patch(plt.Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, ec="black", lw=1.6))
        ax.set_xticks(range(len(concepts)), concepts, rotation=45, ha="right")
        ax.set_yticks(range(len(targets)), targets)
        right = int((result["name"] == result["target"]).sum())
        ax.set(xlabel="concept", title=f"{title}: {right} of {len(targets)} right")
    axes[0, 0].set_ylabel("output of the classifier")
    figure.colorbar(ax.images[0], ax=axes[0], label="score, in SD of the row")
    return figure
