from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from . import style


def neuron_card(card, *, marks=None):
    """One neuron: the words of its description, the concept that fits, and what it does on held-out speakers.

    Parameters
    ----------
    card : dict
        Of `dissection.card`.
    marks : dict of str to float, optional
        Activations of other recordings by name, drawn as lines.
    """
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 4.0), width_ratios=(1, 0.9, 1.3))
    _words(axes[0], card)
    _concepts(axes[1], card)
    _labels(axes[2], card, marks or {})
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
    ax.set(xlabel="z, high against low exemplars\n(dotted: 95 % of shuffled captions)", title="Its words")


def _concepts(ax, card):
    """Score of each concept."""
    named = card["named"]
    score, colors = named["score"].values, style.colors(named["concept"].values)
    ax.barh(range(score.size), score, color=list(colors.values()))
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(score.size), list(colors), size=8)
    ax.invert_yaxis()
    ax.set(
        xlabel=f"fit with the captions\n({named['name'].item()} fits best, p = {float(named['p']):.3f})",
        title="Its concept",
    )


def _labels(ax, card, marks):
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
    for style_, (name, value) in zip(("-", "--", "-.", ":") * len(marks), marks.items()):
        ax.axvline(value, color="black", lw=1, ls=style_, label=name)
    if marks:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), fontsize=8, ncols=2)
    ax.set_yticks(range(len(names)), names, size=8)
    ax.invert_yaxis()
    foretold = "says nothing" if np.isnan(card["rho"]) else f"ρ = {card['rho']:+.2f}"
    ax.set(
        xlabel="mean activation in a clip\n(right: AUROC; *: q < 0.05)",
        title=f"Held-out speakers: description {foretold}",
    )
