"""Figures of open concepts: adjectives of neurons, and neurons that no concept describes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import statistics
from . import style

_COLOR = style.COLORS[0]  # neurons with the adjective
_OTHER_COLOR = style.COLORS[1]  # other neurons of the same layers
_POOLED = {"ms": 11, "mew": 2, "color": "#555555"}  # all draws from shuffled captions together

# ---------- adjectives


def adjectives(table: pd.DataFrame, *, max_adjectives: int = 20, ax: Axes | None = None) -> Figure:
    """Plot the number of neurons that each adjective describes, beside descriptions from shuffled captions.

    `table` is as returned by `open_concepts.distribution`; the `max_adjectives` adjectives that describe most neurons
    are shown. With `ax`, draw into these axes.
    """
    top = table[:max_adjectives]
    rows = np.arange(len(top))
    figure, axes = style.panel(ax, height=1.2 + 0.24 * len(top))
    seaborn.barplot(
        top.reset_index(names="adjective"),
        x="neurons",
        y="adjective",
        color=style.COLORS[0],
        saturation=1,
        errorbar=None,
        label="original captions",
        legend=False,
        ax=axes,
    )
    if "chance" in top:
        error = np.array([top["chance"] - top["chance_low"], top["chance_high"] - top["chance"]])
        options = {"fmt": "o", "ms": 4, "capsize": 3, "color": "black", "mfc": style.RANDOM_COLOR}
        axes.errorbar(
            top["chance"], rows, xerr=error, label="shuffled captions: mean, 95 % of further draws", **options
        )
        ends = top[["neurons", "chance_high"]].max(axis=1)
        for row in np.flatnonzero(~(top["q"] < 0.05)):
            axes.text(ends.iloc[row], row, "  n.s. (q ≥ 0.05)", va="center")
    axes.set_yticks(rows, top.index, parse_math=False)
    count_note = ""
    if len(top) < len(table):
        count_note = f" ({len(top)} of {len(table)})"
    axes.set(
        xlabel="neurons",
        ylabel="",
        xlim=(0, None),
        title=f"Neurons by adjective{count_note}; a neuron may have several",
    )
    style.legend_below(axes, columns=2, inside=ax is not None)
    return figure


def adjectives_by_layer(result: xr.Dataset, *, ax: Axes | None = None) -> Figure:
    """Plot the mean number of adjectives per neuron by layer, a line through the layers, and shuffled captions.

    `result` is as returned by `open_concepts.by_layer`. Each part has its colour; shaded: the 95 % band of the line
    with layers as units; grey: the range of the draws from shuffled captions. With `ax`, draw into
    these axes.
    """
    figure, axes = style.panel(ax, height=4)
    if "part" in result.dims:
        for index, part in enumerate(result["part"].values.tolist()):
            _draw_part(axes, result.sel(part=part), index, name=part)
    else:
        _draw_part(axes, result, 0)
    if "chance" in result:
        name = f"shuffled captions: {result.sizes['draw']} draws, all"
        axes.fill_between([], [], [], color=style.RANDOM_COLOR, label=name)
    axes.set(xlabel="layer", ylabel="adjectives per neuron (mean)", ylim=(0, None), xticks=np.unique(result["layer"]))
    axes.set_title("Adjectives by layer: line and 95 % band, layers as units")
    columns = 1 if result.sizes.get("part", 1) > 1 else 2
    style.legend_below(axes, columns=columns, inside=ax is not None)
    return figure


def _draw_part(ax, result, index, name=None):
    """Draw the mean of each layer, the line through them with its band, and the range of shuffled captions."""
    color = style.color(index)
    mean = result["mean"].dropna("layer")
    layers = mean["layer"].values
    if "chance" in result:
        draws = result["chance"].sel(layer=layers).transpose("draw", "layer")
        ax.fill_between(layers, draws.min("draw"), draws.max("draw"), color=style.RANDOM_COLOR, alpha=0.7, lw=0)
        ax.plot(layers, draws.mean("draw"), color="#777777", lw=1, ls=":")

    ax.plot(layers, mean, style.marker(index), color=color, label=_label(result, name))
    slope = float(result["slope"])
    line = float(result["intercept"]) + slope * layers
    centred = layers - layers.mean()
    half_width = (float(result["high"]) - slope) * np.sqrt(np.mean(centred**2) + centred**2)
    ax.plot(layers, line, color=color, lw=1.2)
    ax.fill_between(layers, line - half_width, line + half_width, color=color, alpha=0.15, lw=0)


def _label(result, name):
    """Return the label of a part: its name, and the slope of its line where there is one."""
    slope = float(result["slope"])
    if not np.isfinite(slope):
        return name
    interval = f"{float(result['low']):+.2f} to {float(result['high']):+.2f}"
    text = f"{slope:+.2f} per layer ({interval}), p = {float(result['p']):.2g}".replace("-", "−")
    return text if name is None else f"{name}: {text}"


def adjective_check(result: xr.Dataset, *, units: str = "speakers") -> Figure:
    """Plot how many neurons follow the quantity their adjective names, on clips not used for the descriptions.

    `result` is as returned by `open_concepts.check`. Left: the share of neurons that do. Right: their mean correlation
    over speakers. Adjectives that no neuron has are left out. `units` is the title's word for speakers.
    """
    result = result.sel(adjective=result["neurons"].values > 0)
    n_rows = result.sizes["adjective"]
    if not n_rows:
        figure, ax = style.panels(height=1)
        ax.set_axis_off()
        ax.set_title("No neuron has an adjective")
        return figure

    figure, (share_axes, rho_axes) = style.panels(1, 2, height=1.5 + 0.26 * n_rows, sharey=True)
    rows = np.arange(n_rows)
    _draw_adjective_shares(share_axes, rows, result)
    _draw_correlations(rho_axes, rows, result)
    names = [f"{name} ({n})" for name, n in zip(result["adjective"].values, result["neurons"].values)]
    share_axes.set_yticks(rows, names, parse_math=False)
    share_axes.invert_yaxis()
    share_axes.set(
        xlabel="neurons that follow it (%, q < 0.05)", xlim=(-2, 102), title="Adjective (neurons that have it)"
    )
    interval_note = _interval_note(int(result["n"].max()), units)
    rho_axes.set(xlabel="ρ with the quantity", title=f"Held-out clips{interval_note}")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _draw_adjective_shares(axes, rows, result):
    """Draw the share of neurons that follow their adjective, of other neurons, and with shuffled captions."""
    if "chance" in result:
        shares = result["chance"].transpose("draw", "adjective")
        counts = result["chance_neurons"].transpose("draw", "adjective")
        for row, draws in zip(rows, shares.values.T):
            if np.isfinite(draws).any():
                ends = np.nanquantile(100 * draws, [0.025, 0.975])
                axes.plot(ends, [row, row], color=style.RANDOM_COLOR, lw=5, alpha=0.5, zorder=0)
        pooled = (shares * counts).sum("draw") / counts.sum("draw").where(lambda n: n > 0)
        axes.plot(100 * pooled, rows, "|", **_POOLED)
    axes.plot(100 * result["other"], rows, "D", ms=5, color=_OTHER_COLOR, mfc="white")
    axes.plot(100 * result["passed"], rows, "o", ms=6, color=_COLOR)


def _draw_correlations(axes, rows, result):
    """Draw the mean correlation of neurons with their adjective, with its interval, and of other neurons."""
    error = [result["mean"] - result["low"], result["high"] - result["mean"]]
    axes.errorbar(
        result["mean"], rows, xerr=error, fmt="o", ms=6, capsize=2, color=_COLOR, label="neurons with the adjective"
    )
    (others,) = axes.plot(result["mean_other"], rows, "D", ms=5, color=_OTHER_COLOR, mfc="white")
    if np.isfinite(result["mean_other"]).any():
        others.set_label("other neurons of the same layers")
    if "chance" in result and np.isfinite(result["chance"]).any():
        axes.plot([], [], "|", **_POOLED, label="shuffled captions: all draws (bar: 95 % of them)")
    axes.axvline(0, color="black", lw=0.8)


def _interval_note(n, units):
    """Return the title's words on the interval over `n` speakers."""
    if n >= statistics.MIN_SPEAKERS:
        return f", 95 % interval over {n} {units}"
    if n > 1:
        return f", mean over {n} {units}, no interval"
    return ", all together: no interval"


# ---------- neurons that nothing describes


def uninterpretable(result: xr.Dataset) -> Figure:
    """Plot the share of neurons that no kind of sentence describes, by layer, for each tau, beside random clips.

    `result` is as returned by `interpretability.uninterpretable`; one of `part`, `clusters` and `k` may have several
    values, each in its panel. Raise ValueError if more than one of them has.
    """
    choices = [name for name in ("part", "clusters", "k") if name in result["share"].dims]
    single = [name for name in choices if result.sizes[name] == 1]
    varied = [name for name in choices if result.sizes[name] > 1]
    if len(varied) > 1:
        raise ValueError(f"only one of {', '.join(varied)} may have several values: pick with .sel(…)")
    result = result[["share", "chance"]].squeeze(single)
    facets = _facets(result, varied)
    figure, panels = style.panels(1, len(facets), height=3.8, sharex=True, sharey=True, squeeze=False)
    for ax, (title, facet_result) in zip(panels[0], facets.items()):
        _draw_shares(ax, facet_result)
        ax.set(xlabel="layer", ylim=(0, 102), xticks=facet_result["layer"].values)
        ax.set_title(title, parse_math=False)
    panels[0, 0].set_ylabel("neurons not interpretable (%)")

    title = "Fewer than τ of a neuron's top clips share a kind of sentence"
    for name in single:
        title += f"; {name} {result[name].item()}"
    figure.suptitle(title, fontsize=11)
    handles, _ = ax.get_legend_handles_labels()
    band = ax.fill_between([], [], [], color="gray", alpha=0.25, label="random clips: mean, 95 % of draws")
    figure.legend(handles=[*handles, band], loc="outside lower center", ncols=4)
    return figure


def _facets(result, varied) -> dict[str, xr.Dataset]:
    """Return the result of each panel by its title."""
    if not varied:
        return {"": result}
    (name,) = varied
    return {f"{name} {value}": result.sel({name: value}) for value in result[name].values.tolist()}


def _draw_shares(ax, result):
    """Draw the share of neurons of each layer, a curve for each tau, with the mean and band of random clips."""
    for index, tau in enumerate(result["tau"].values.tolist()):
        color = style.color(index)
        percentages = 100 * result.sel(tau=tau).dropna("layer", subset=["share"])
        layers = percentages["layer"].values
        if len(layers):
            draws = percentages["chance"].transpose("draw", "layer")
            low, high = np.quantile(draws, [0.025, 0.975], axis=0)
            ax.fill_between(layers, low, high, alpha=0.25, lw=0, color=color)
            ax.plot(layers, draws.mean("draw"), lw=1, ls=":", color=color)
        ax.plot(layers, percentages["share"], style.marker(index), ls="-", ms=5, label=f"τ = {tau}", color=color)
