import textwrap

import numpy as np

from . import style


def neuron_card(card, *, marks=None):
    """One neuron: the words of its description, the concept that fits, and what it does on held-out speakers.

    `card` is of `dissection.card`; `marks` are activations of other recordings by name, drawn as lines.
    """
    figure, (words, concepts, clips) = style.panels(1, 3, height=4.0, width_ratios=(1, 0.9, 1.3))
    z = card["z"].sortby(card["z"])
    words.barh(range(z.size), z.values, color=np.where(z.values > 0, *style.COLORS[:2]))
    for side in (-1, 1):
        words.axvline(side * card["null_z"], color="black", lw=1, ls=":")
    words.set_yticks(range(z.size), z["word"].values, size=8)
    words.set(xlabel="z, high against low exemplars\n(dotted: 95 % of shuffled captions)", title="Its words")

    named = card["named"]
    colors = style.colors(named["concept"].values)
    concepts.barh(range(len(colors)), named["score"], color=list(colors.values()))
    concepts.axvline(0, color="black", lw=0.8)
    concepts.set_yticks(range(len(colors)), list(colors), size=8)
    concepts.invert_yaxis()
    best = f"({named['name'].item()} fits best, p = {float(named['p']):.3f})"
    concepts.set(xlabel=f"fit with the captions\n{best}", title="Its concept")

    _clips(clips, card["test"], card["selective"])
    for line, (name, value) in zip(("-", "--", "-.", ":") * len(marks or ()), (marks or {}).items()):
        clips.axvline(value, color="black", lw=1, ls=line, label=name)
    if marks:
        clips.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), fontsize=8, ncols=2)
    foretold = "says nothing" if np.isnan(card["rho"]) else f"ρ = {card['rho']:+.2f}"
    clips.set_title(f"Held-out speakers: description {foretold}")
    text = textwrap.shorten(card["sentence"], 110)
    figure.suptitle(f"Layer {card['layer']}, neuron {card['neuron']}: {text}", ha="left", x=0.01, size=10)
    return figure


def _clips(ax, test, selective):
    """Activation of each held-out clip, by label, with the AUROC."""
    colors, rng = style.colors(selective["concept"].values), np.random.default_rng(0)
    for place, (name, color) in enumerate(colors.items()):
        values, one = test.values[test["label"].values == name], selective.sel(concept=name)
        ax.plot(values, place + rng.uniform(-0.22, 0.22, len(values)), "o", ms=4, color=color, mec="black", mew=0.3)
        text = f"{float(one['mean']):.2f}{' *' if one['q'] < 0.05 else ''}"
        ax.text(1.01, place, text, transform=ax.get_yaxis_transform(), size=8, va="center")
    ax.set_yticks(range(len(colors)), list(colors), size=8)
    ax.invert_yaxis()
    ax.set_xlabel("mean activation in a clip\n(right: AUROC; *: q < 0.05)")
