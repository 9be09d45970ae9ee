from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .. import statistics
from . import style


def neuron_profile(scores, response, layer, neuron, *, by="absolute", k=20):
    """One neuron among the best of its layer, and what drives it.

    Left: the layer's `k` greatest mean scores, each speaker (or clip, where speakers are not known) a dot, the
    neuron filled in colour. Right: its response to the segments of one clip.

    Parameters
    ----------
    scores : Dataset [clip, layer, neuron]
        From `attribution.grad_x_activation`.
    response : DataArray [segment, layer, neuron]
        One clip of `attribution.segment_response`.
    """
    named = "speaker" in scores.coords and not pd.isna(scores["speaker"].values).any()
    values = scores[by].sel(layer=layer).transpose("clip", "neuron")
    values = (statistics.by_speaker(values).transpose("speaker", "neuron") if named else values).values
    order = np.argsort(-values.mean(axis=0), kind="stable")
    rank = int(np.flatnonzero(order == neuron)[0])
    shown = order[:k] if rank < k else np.append(order[: k - 1], neuron)
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 3.2), width_ratios=[3, 2])
    colors = [style.EMOTION_COLORS["angry"] if n == neuron else "#B8C4CE" for n in shown]
    left.bar(range(len(shown)), values[:, shown].mean(axis=0), color=colors)
    for place, n in enumerate(shown):
        left.scatter(np.full(len(values), place), values[:, n], s=4, color="black", alpha=0.4, linewidths=0)
    left.set_xticks(range(len(shown)), shown, rotation=90, fontsize=8)
    left.set(xlabel="neuron", ylabel=f"{by} attribution ({scores.attrs.get('scale', 'logit')})")
    left.set_title(f"Layer {layer}: neuron {neuron} is number {rank + 1} of {values.shape[1]}")
    line = response.dropna("segment", how="all").sel(layer=layer, neuron=neuron)
    edges = np.append(line["seconds"].values, line["seconds"].values[-1] + response.attrs["length"])
    right.stairs(line.values, edges, fill=True, color=style.EMOTION_COLORS["sad"])
    right.axhline(0, color="black", lw=0.6)
    right.set(xlabel="time (s)", ylabel="activation lost", title="When a segment is silenced")
    return figure
