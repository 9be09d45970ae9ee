from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from . import style


def neuron_card(card):
    """One neuron: the words of its description, the concept that fits, and what it does on held-out speakers.

    Parameters
    ----------
    card : dict
        Of `dissection.card`.
    """
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 4.0), width_ratios=(1.1, 1, 1.3))
    _words(axes[0], card)
    _concepts(axes[1], card)
    _labels(axes[2], card)
    text = textwrap.shorten(card["sentence"], 110)
    figure.suptitle(f"Layer {card['layer']}, neuron {card['neuron']}: {text}", ha="left", x=0.01, size=10)
    return figure


def _words(ax, card):
    """z of each word, and the level that shuffled captions reach."""
    z = card["z"].sortby(card["z"])
    ax.barh(range(z.size), z.values, color=np.where(z.values > 0, "#0072B2", "#D55E00"))
    for side in (-1, 1):
        ax.axvline(side * card["null_z"], color="black", lw=1, ls=":")
    ax.set_yticks(range(z.size), z["word"].values, size=8)
    ax.set(xlabel="z, high against low exemplars", title="Words (dotted: 95 % of shuffles)")


def _concepts(ax, card):
    """Score of each concept."""
    score = card["score"]
    colors = style.colors(score["concept"].values)
    ax.barh(range(score.size), score.values, color=[colors[name] for name in score["concept"].values])
    ax.set_yticks(range(score.size), score["concept"].values, size=8)
    ax.invert_yaxis()
    ax.set(xlabel="score", title=f"{card['concept']} fits best, p = {card['p']:.2f}")


def _labels(ax, card):
    """Activation of each held-out clip, by label, with the AUROC."""
    test, selective = card["test"], card["selective"]
    names = list(selective["concept"].values)
    colors, rng = style.colors(names), np.random.default_rng(0)
    labels = pd.Series(test["label"].values)
    for place, name in enumerate(names):
        values = test.values[(labels == name).to_numpy()]
        at = place + rng.uniform(-0.22, 0.22, len(values))
        ax.plot(values, at, "o", ms=4, color=colors[name], mec="black", mew=0.3)
        one = selective.sel(concept=name)
        star = " *" if one["q"] < 0.05 else ""
        ax.text(1.01, place, f"{float(one['mean']):.2f}{star}", transform=ax.get_yaxis_transform(), size=8, va="center")
    ax.set_yticks(range(len(names)), names, size=8)
    ax.invert_yaxis()
    foretold = "says nothing" if np.isnan(card["rho"]) else f"ρ = {card['rho']:+.2f}"
    ax.set(xlabel="activation, held-out speakers", title=f"Description {foretold}; right: AUROC")
