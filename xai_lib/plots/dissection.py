"""Figures of what neurons respond to: a neuron's card, descriptions on held-out clips, selectivity."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import cycle

import numpy as np
import pandas as pd
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import statistics
from ..dissection import NeuronCard
from . import style

_DESCRIPTIONS = {  # variables of `dissection.predictivity`: their names and colours
    "rho": ("the neuron's own", style.COLORS[0]),
    "other": ("another neuron's", style.COLORS[4]),
    "shuffled": ("from shuffled captions", style.RANDOM_COLOR),
}

# ---------- all neurons


def description_check(predictivity: xr.Dataset, *, ax: Axes | None = None) -> Figure:
    """Plot the correlation of descriptions with activations on held-out clips, by layer, beside two controls.

    `predictivity` is as returned by `dissection.predictivity`. With `ax`, draw into these axes.
    """
    tables = []
    colors = {}
    for variable, (name, color) in _DESCRIPTIONS.items():
        rho = predictivity[variable]
        label = f"{name}\n(ρ defined: {float(rho.notnull().mean()):.0%})"
        tables.append(rho.to_dataframe("rho").reset_index().assign(description=label))
        colors[label] = color

    figure, axes = style.panel(ax, height=3.8)
    axes.set_title("Descriptions on held-out clips (box: quartiles; whiskers: 5–95 % of neurons)")
    table = pd.concat(tables, ignore_index=True)
    if not table["rho"].notna().any():  # seaborn cannot draw boxes of nothing
        axes.text(0.5, 0.5, "no description has words that distinguish clips", transform=axes.transAxes, ha="center")
        axes.set_axis_off()
        return figure
    seaborn.boxplot(
        table,
        x="layer",
        y="rho",
        hue="description",
        palette=colors,
        saturation=1,
        gap=0.15,
        whis=(5, 95),
        showfliers=False,
        ax=axes,
    )
    axes.axhline(0, color="black", lw=0.8)
    axes.set(ylabel="ρ with the activation", ylim=(-1.02, 1.02))
    axes.legend(title="description", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def selective_neurons(selective: xr.Dataset, *, level: float = 0.05, ax: Axes | None = None) -> Figure:
    """Plot the share of each layer's neurons that distinguish a label from the rest, by their best label.

    `selective` is as returned by `dissection.selectivity`; neurons with q < `level` count. Upward bars: neurons more
    active for the label than for the others; downward bars: less active. With `ax`, draw into these axes.
    """
    mean = selective["mean"].transpose("layer", "neuron", "concept")
    deviation = np.abs(mean - 0.5).where(selective["q"] < level, -1.0)
    is_best = mean["concept"] == mean["concept"][deviation.argmax("concept")]
    counted = is_best & (deviation > 0)
    more_active = 100 * (counted & (mean > 0.5)).mean("neuron")
    less_active = 100 * (counted & (mean <= 0.5)).mean("neuron")

    figure, axes = style.panel(ax)
    colors = style.colors(mean["concept"].values)
    options = {"stacked": True, "color": colors, "width": 0.7, "edgecolor": "white", "rot": 0, "ax": axes}
    more_active.transpose("layer", "concept").to_pandas().plot.bar(**options)
    (-less_active).transpose("layer", "concept").to_pandas().plot.bar(**options, legend=False)
    axes.axhline(0, color="black", lw=0.8)
    axes.yaxis.set_major_formatter(style.unsigned)
    axes.set(xlabel="layer", ylabel="← less active | more active →\nshare of neurons (%)")
    axes.set_title(f"Neurons that distinguish a label from the rest (false discovery rate {level:g})")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[: len(colors)], labels[: len(colors)], loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# ---------- one neuron


def neuron_card(card: NeuronCard, *, marks: Mapping[str, float] | None = None, units: str = "speakers") -> Figure:
    """Plot one neuron: words of its description, best concept, activation on held-out clips, and zero ablation.

    `card` is a `NeuronCard`, as returned by `dissection.card`; missing parts are left out. `marks` are activations of
    other recordings by name, drawn as lines. Text is truncated and drawn literally: a "$" starts no formula. `units`
    is the figure's word for speakers.
    """
    sections = []
    widths = []
    if card.z is not None:
        sections.append(_draw_words)
        widths.append(1)
    if card.concept_match is not None:
        sections.append(_draw_concepts)
        widths.append(0.9)
    if card.test is not None and card.selectivity:
        sections.append(partial(_draw_clips, marks=marks or {}))
        widths.append(1.3)
    if card.zero_ablation is not None and "mean" in card.zero_ablation:
        sections.append(partial(_draw_zeroed, units=units))
        widths.append(0.8)

    n_rows = 1
    if not sections:
        widths = [1]
    elif len(sections) > 3:
        n_rows = 2
        widths = [1, 1]
    figure, panels = style.panels(n_rows, len(widths), height=3.6 * n_rows + 0.4, squeeze=False, width_ratios=widths)
    for ax, draw in zip(panels.flat, sections):
        draw(ax, card)
    if not sections:
        panels[0, 0].set_axis_off()
    style.heading(figure, f"{_plain(card.title, 60)}: {_plain(card.description, 110)}", fontsize=10)
    return figure


def _draw_words(ax, card):
    """Draw the z of each word."""
    z = card.z.sortby(card.z)
    furthest = np.argsort(-np.abs(z.values), kind="stable")[:20]  # more would be unreadable
    z = z[np.sort(furthest)]
    ax.barh(range(z.size), z.values, color=np.where(z.values > 0, *style.COLORS[:2]))
    ax.axvline(-card.chance_z, color="black", lw=1, ls=":")
    ax.axvline(card.chance_z, color="black", lw=1, ls=":")
    ax.set_yticks(range(z.size), [_plain(word) for word in z["word"].values], size=8)
    ax.set(
        xlabel="z, high against low exemplars\n(dotted: 95 % of shuffled captions)", title="Words of the description"
    )


def _draw_concepts(ax, card):
    """Draw the score of each concept; of a long list, the best ten."""
    match = card.concept_match
    score = match["score"]
    if score.size > 10:
        score = score[np.argsort(-score.values, kind="stable")[:10]]
    else:
        score = score.sel(concept=_in_order(card, score["concept"].values))
    colors = style.colors(score["concept"].values)
    # Points, not bars: mutual information can be below 0, and the worst concept would have the longest bar.
    ax.scatter(score, range(score.size), s=60, color=list(colors.values()), edgecolor="black", lw=0.3, zorder=3)
    ax.hlines(range(score.size), 0, 1, transform=ax.get_yaxis_transform(), color="#DDDDDD", lw=0.8)
    dotted = ""
    if np.isfinite(match["chance"]):
        ax.axvline(float(match["chance"]), color="black", lw=1, ls=":")
        dotted = "\n(dotted: best of shuffled)"
    ax.set_yticks(range(score.size), [_plain(name) for name in colors], size=8)
    ax.invert_yaxis()
    name = _plain(match["name"].item() or "none")
    ax.set(xlabel=f"fit ({name} fits best,\np = {float(match['p']):.3f}){dotted}", title="Concept")


def _draw_clips(ax, card, marks):
    """Draw the activation of each held-out clip by class, with the AUROC."""
    test = card.test
    rng = np.random.default_rng(0)
    names = []
    right = ax.get_yaxis_transform()
    for column, selective in card.selectivity.items():
        classes = _in_order(card, selective["concept"].values)
        colors = style.colors(classes) if column == "label" else dict(zip(classes, cycle(style.MORE_COLORS[::-1])))
        for name in classes:
            row = len(names)
            values = test.values[test[column].values == name]
            shifts = rng.uniform(-0.22, 0.22, len(values))
            ax.plot(values, row + shifts, "o", ms=4, color=colors[name], mec="black", mew=0.3)
            ax.text(1.01, row, _auroc(selective.sel(concept=name)), transform=right, size=8, va="center")
            names.append(_plain(name))
        ax.axhline(len(names) - 0.5, color="#CCCCCC", lw=0.8)
    ax.set_yticks(range(len(names)), names, size=8)
    ax.set_ylim(len(names) - 0.5, -0.5)
    for name, linestyle in zip(marks, cycle(("-", "--", "-.", ":"))):
        ax.axvline(marks[name], color="black", lw=1, ls=linestyle, label=_plain(name).lstrip("_"))
    if marks:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), fontsize=8, ncols=2)
    ax.set_xlabel("mean activation in a clip\n(right: AUROC; *: q < 0.05)")
    ax.set_title(f"Held-out clips{_correlation_note(card.rho)}")


def _auroc(class_result):
    """Return the AUROC of a class as text, with a star where it is significant."""
    star = " *" if class_result["q"] < 0.05 else ""
    return f"{float(class_result['mean']):.2f}{star}"


def _correlation_note(rho):
    """Return the title's words on the description's correlation with the activation."""
    if rho is None:
        return ""
    if np.isnan(rho):
        return ": empty description"
    return f": description ρ = {rho:+.2f}"


def _draw_zeroed(ax, card, units):
    """Draw the change of each class under zero ablation of the neuron."""
    effect = card.zero_ablation
    colors = style.colors(effect["target"].values)
    error = [effect["mean"] - effect["low"], effect["high"] - effect["mean"]]
    ax.barh(range(len(colors)), effect["mean"], xerr=error, color=list(colors.values()), ecolor="black", capsize=2)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(colors)), [_plain(name) for name in colors], size=8)
    ax.invert_yaxis()
    scale = "log odds (nats)" if effect.attrs["scale"] == "log_odds" else effect.attrs["scale"]
    ax.locator_params(axis="x", nbins=5)
    ax.set(xlabel=f"change in the {scale}\nof each class, on its clips", title="Zero ablation")
    if "n" in effect and bool(((effect["n"] > 0) & ~np.isfinite(effect["low"])).any()):
        ax.set_title(f"Zero ablation (no interval: needs {statistics.MIN_SPEAKERS} {units})", fontsize=10)


def _in_order(card, names) -> list:
    """Return names in the order of the panel of classes, so that all panels agree; others follow in their own order."""
    effect = card.zero_ablation
    if effect is None:
        return list(names)
    first = effect["target"].values.tolist()
    return sorted(names, key=lambda name: first.index(name) if name in first else len(first))


def _plain(text, max_length=24) -> str:
    """Return untrusted text as one line without formulas and of bounded length."""
    characters = [character if character.isprintable() else " " for character in str(text)[: max_length + 1]]
    line = "".join(characters)
    if len(line) > max_length:
        line = line[: max_length - 1] + "…"
    return line.replace("$", r"\$")
