"""Figures of what an edit of neurons does to the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import ablation, results, statistics
from . import style

NOT_SIGNIFICANT = "n.s. against random neurons (q ≥ 0.05), or not tested"
EDIT_DIM_LABELS = {"layer": "edited layer", "group": "edited layers"}  # axis labels of the dims of edits
_X_LABELS = EDIT_DIM_LABELS | {"k": "neurons edited"}
_BAND = "size-matched random neurons: 95 % of sets"
_SCALED = ["mean", "low", "high", "speakers", "random_mean", "random_low", "random_high"]
_COLOR = style.COLORS[0]  # selected neurons


# ---------- curves over layers, numbers of neurons and modes


def layer_curves(
    curves: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    ylabel: str = "change of the target's log-odds (nats)",
    random: bool = True,
    scale: str = "raw",
    ax: Axes | None = None,
) -> Figure:
    """Plot the effect of an edit by edited layer, over speakers, in raw units.

    `curves` is a Dataset returned by `ablation.effect_over_speakers`, or several by name, with no dims but `layer` or
    `group`. With `random`, the bands of the random neurons are drawn, if there are any. With `scale` "min-max" each
    curve runs from 0, its lowest mean, to 1, its highest, which shows its shape and hides its size. With `ax`, draw
    into these axes.

    Raise ValueError for an unknown `scale`, for curves of layers mixed with curves of groups, and for other dims.
    """
    if scale not in ("raw", "min-max"):
        raise ValueError(f"unknown scale {scale!r}: choose 'raw' or 'min-max'")
    if isinstance(curves, xr.Dataset):
        curves = {"selected neurons": curves}
    row = _common_edit_dim(curves.values())
    figure, axes = style.panel(ax)
    for index, (name, curve) in enumerate(curves.items()):
        names = curve[row].values
        layers = names if row == "layer" else np.arange(len(names))
        positions = layers + 0.08 * (index - (len(curves) - 1) / 2)
        if scale == "min-max":
            curve = _min_max(curve)
        draw_curve(
            axes, layers, curve, positions=positions, index=index, name=name, random=random, alone=len(curves) == 1
        )
    axes.set(xlabel=EDIT_DIM_LABELS[row], title=speakers_title(*curves.values()))
    axes.set_xticks(layers, names)
    if scale == "raw":
        axes.axhline(0, color="black", lw=0.6)
        axes.set_ylabel(ylabel, fontsize=10)
    else:
        quantity = ylabel.rsplit(" (")[0]
        axes.set_ylabel(f"{quantity},\nmin–max: 0 = lowest mean, 1 = highest", fontsize=9)
    style.legend_below(axes, columns=4, inside=ax is not None)
    return figure


def _common_edit_dim(curves):
    """Return the dim of the edits, "layer" or "group"; raise ValueError if some curves have one and some the other."""
    rows = {edit_dim(curve["mean"]) for curve in curves}
    if len(rows) > 1:
        raise ValueError("curves of layers and of groups cannot share an axis: plot them in separate figures")
    return rows.pop()


def _min_max(curve):
    """Scale a curve so that its mean runs from 0, the lowest, to 1, the highest."""
    lowest = curve["mean"].min()
    span = curve["mean"].max() - lowest
    return curve.assign((curve[_SCALED] - lowest) / (span if span > 0 else 1))


def dose_response(
    curves: xr.Dataset,
    directions: xr.Dataset | None = None,
    *,
    ylabel: str = "change of the target's log-odds (nats)",
    ax: Axes | None = None,
) -> Figure:
    """Plot the effect of an edit by the number of neurons, for one or several selections and random neurons.

    Parameters
    ----------
    curves : Dataset
        As returned by `ablation.effect_over_speakers` for one layer and mode of sweeps with several `k`, joined by
        `xr.concat`, and perhaps with several selections, such as "top" and "bottom": [k] or [selection, k].
    directions : Dataset, optional
        The same, with `against="direction"`; only its random directions are drawn.
    ax : Axes, optional
        Draw into these axes.

    Raises
    ------
    ValueError
        `curves` has no dim `k`.
    """
    if "k" not in curves["mean"].dims:
        raise ValueError("a dose–response curve needs the dim k: join sweeps with several k by xr.concat")
    if "selection" not in curves.dims:
        curves = curves.expand_dims(selection=["selected neurons"])
    names = curves["selection"].values.tolist()
    k = curves["k"].values
    figure, axes = style.panel(ax, height=4.2)
    if directions is not None:
        _draw_directions(axes, k, directions)
    for index, shift in enumerate(style.apart(len(names), 0.012 * np.log(k[-1] / k[0]))):
        curve = curves.isel(selection=index)
        positions = k * np.exp(shift)
        draw_curve(axes, k, curve, positions=positions, index=index, name=names[index], alone=len(names) == 1)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(xscale="log", xlabel="neurons edited (number, log axis)", ylabel=ylabel, title=speakers_title(curves))
    axes.set_xticks(k, k)
    axes.minorticks_off()
    style.legend_below(axes, columns=2, inside=ax is not None)
    return figure


def _draw_directions(axes, k, directions):
    """Draw the band and the mean of random directions."""
    random = directions[["random_low", "random_high", "random_mean"]]
    if "selection" in random.dims:  # directions depend on k alone: the same for all selections
        random = random.isel(selection=0)
    options = {"facecolor": "none", "edgecolor": "#777777", "hatch": "....", "lw": 0}
    axes.fill_between(k, random["random_low"], random["random_high"], **options, label="95 % of random directions")
    axes.plot(k, random["random_mean"], color="#777777", ls="--", lw=1)


def mode_comparison(effects: xr.Dataset, *, ylabel: str = "change of the target's log-odds (nats)") -> Figure:
    """Plot modes of an edit side by side, each with its random neurons; open markers: not significant.

    `effects` is a Dataset returned by `ablation.effect_over_speakers`: [mode], a point each, or [layer, mode] (or
    `group`, or `k`), a panel each, all on one scale. Raise ValueError for other dims.
    """
    dim = _panel_dim(effects["mean"].dims)
    if dim is None:
        figure, panels = style.panels(height=4, squeeze=False)
        _draw_points(panels[0, 0], effects)
        panels[0, 0].set_xlabel("mode")
    else:
        modes = effects["mode"].values.tolist()
        n_columns = min(len(modes), 3)
        figure, panels = style.grid(len(modes), columns=n_columns, row_height=2.2, margin=1.2, sharey=True)
        for axes, mode in zip(panels.flat, modes):
            _draw_mode(axes, effects.sel(mode=mode), dim)
            axes.set(title=mode, xlabel=_X_LABELS[dim])
    for axes in panels.flat:
        axes.axhline(0, color="black", lw=0.6)
    figure.supylabel(ylabel, fontsize=10)
    style.heading(figure, speakers_title(effects))
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _panel_dim(dims):
    """Return the dim along a mode's panel, None if each mode is a point; raise ValueError for other dims."""
    if set(dims) == {"mode"}:
        return None
    for dim in _X_LABELS:
        if set(dims) == {"mode", dim}:
            return dim
    raise ValueError(f"effects need the dims [mode] or [layer, mode], not {list(dims)}: pick with .sel(…)")


def _draw_mode(axes, effects, dim):
    """Draw the effects of one mode along `dim`."""
    positions = np.arange(effects.sizes[dim])
    draw_curve(axes, positions, effects, name="selected neurons")
    _mark_not_significant(axes, positions, effects)
    axes.set_xticks(positions, effects[dim].values, fontsize=8 if len(positions) > 8 else 10)


def _draw_points(axes, effects):
    """Draw a point per mode; right: band of random neurons; left: each speaker, if too few for an interval."""
    positions = np.arange(effects.sizes["mode"])
    low = effects["random_low"].values
    high = effects["random_high"].values
    mean = effects["random_mean"].values
    if np.isfinite(low).any():
        axes.bar(positions + 0.18, high - low, 0.2, low, color=style.RANDOM_COLOR, alpha=0.6, label=_BAND)
        axes.hlines(mean, positions + 0.08, positions + 0.28, color="#777777", lw=1, ls=":")
    draw_speakers_if_few(axes, positions - 0.15, effects, color=_COLOR)
    style.interval(axes, positions, effects, color=_COLOR, marker="o", ms=5, ls="", capsize=4, label="selected neurons")
    _mark_not_significant(axes, positions, effects)
    axes.set_xticks(positions, effects["mode"].values)
    axes.set_xlim(-0.5, len(positions) - 0.5)


def _mark_not_significant(axes, positions, effects):
    """Draw open markers where the effect is not significant against random neurons."""
    not_significant = ~(effects["q"].values < 0.05)
    means = effects["mean"].values[not_significant]
    options = {"mfc": "white", "mec": _COLOR, "zorder": 3, "label": NOT_SIGNIFICANT}
    axes.plot(positions[not_significant], means, "o", ms=5, **options)


# ---------- one layer, and all classes


def layer_effect(
    sweep: xr.Dataset,
    layer: int | str,
    *,
    mode: str = "flip",
    variable: str = "target_change",
    xlabel: str = "change of the target's log-odds (nats)",
) -> Figure:
    """Plot one edited layer, or group: each speaker, each random set, and the probabilities before and after.

    `sweep` is as returned by `ablation.sweep`, `variable` is "target_change", "kl" or "changed". Raise ValueError if
    the sweep does not have the layer or the mode.
    """
    row = edit_dim(of_mode(sweep, variable, mode))
    if layer not in sweep[row]:
        available = ", ".join(str(name) for name in sweep[row].values)
        raise ValueError(f"{row} {layer} is not in the sweep: choose from {available}")
    condition = sweep.sel({row: layer, "mode": mode})
    figure, (effect_axes, probability_axes) = style.panels(1, 2)
    effect = results.units(ablation.selected_values(condition[variable]))
    random_effect = results.average(ablation.control_values(condition[variable], "random"))
    _draw_effect(effect_axes, effect, random_effect)
    effect_axes.set(xlabel=xlabel, ylim=(-0.6, 1.6), title=f"{row.capitalize()} {layer}, {mode}")
    _draw_probabilities(probability_axes, condition)
    return figure


def _draw_effect(axes, effect, random_effect):
    """Draw the effect on each speaker and its mean above that of each random set."""
    axes.plot(effect, 1 + style.apart(effect.size, 0.2), "o", ms=5, alpha=0.6, color=_COLOR)
    axes.plot(effect.mean(), 1, "|", ms=26, mew=2.5, color=_COLOR)
    axes.plot(random_effect, style.apart(random_effect.size, 0.25), ".", color="#777777", alpha=0.7)
    name = f"selected:\n{effect.dims[0]}s, mean"
    if random_effect.size:
        axes.set_yticks([1, 0], [name, "random:\nsets"])
    else:
        axes.set_yticks([1], [name])
    axes.axvline(0, color="black", lw=0.6)


def _draw_probabilities(axes, condition):
    """Draw the probability of each class, clean and edited."""
    colors = style.colors(condition["label"].values.tolist())
    positions = np.arange(len(colors))
    clean = results.average(condition["clean_probability"])
    edited = results.average(ablation.selected_values(condition["probability"]))
    axes.barh(positions - 0.2, clean, 0.38, color=style.RANDOM_COLOR)
    axes.barh(positions + 0.2, edited, 0.38, color=list(colors.values()))
    axes.set(xlabel="probability", xlim=(0, None), title="Grey: clean. Colour: edited")
    axes.set_yticks(positions, list(colors))
    axes.invert_yaxis()


def emotion_tracking(
    sweep: xr.Dataset, *, mode: str = "flip", title: str | None = None, ax: Axes | None = None
) -> Figure:
    """Plot the probability of every class, clean and with each layer edited in turn; mean over speakers or clips.

    `sweep` is as returned by `ablation.sweep`; for one clip pass `sweep.sel(clip=[17])`. With `ax`, draw
    into these axes.
    """
    clean = results.average(sweep["clean_probability"])
    edited = of_mode(sweep, "probability", mode)
    row = edit_dim(edited, "label")
    names = edited[row].values
    layers = names if row == "layer" else np.arange(len(names))
    start = layers.min() - 1.5

    figure, axes = style.panel(ax)
    for label, color in style.colors(sweep["label"].values.tolist()).items():
        label_clean = clean.sel(label=label)
        label_edited = edited.sel(label=label)
        axes.plot(layers, label_edited, "o-", ms=4, color=color, label=label)
        axes.plot([start, layers[0]], [label_clean, label_edited[0]], color=color, lw=0.5, ls=":")
        axes.plot(start, label_clean, "D", ms=6, color=color)
    axes.set_xticks([start, *layers], ["clean", *names])
    axes.set(xlabel=EDIT_DIM_LABELS[row], ylabel="probability", ylim=(0, None))
    axes.set_title(title or f"{mode} of the selected neurons, mean of {sweep.sizes['clip']} clips")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


# ---------- shared by figures of edits


def edit_dim(values: xr.DataArray, *others: str) -> str:
    """Return the dim of the edits, "layer" or "group"; raise ValueError if the dims are not that one and `others`."""
    row = next((dim for dim in EDIT_DIM_LABELS if dim in values.dims), "layer")
    for dim in sorted({*values.dims} ^ {row, *others}):
        if dim in values.dims:
            raise ValueError(f"this figure cannot show the dim {dim}: pick one with .sel({dim}=…)")
        raise ValueError(f"this figure needs the dim {dim}: keep it, e.g. with .sel({dim}=[…])")
    return row


def of_mode(sweep: xr.Dataset, name: str, mode: str) -> xr.DataArray:
    """Return a variable of the selected neurons under one mode, mean over speakers or clips.

    Raise ValueError if the mode was not run.
    """
    available = np.atleast_1d(sweep["mode"].values).tolist()
    if mode not in available:
        raise ValueError(f"mode {mode!r} was not run: choose from {', '.join(available)}")
    values = sweep[name]
    if sweep["mode"].ndim:
        values = values.sel(mode=mode)
    return results.average(ablation.selected_values(values))


def speakers_title(*curves: xr.Dataset) -> str:
    """Return the title's words on speakers: their number, and whether an interval is shown."""
    n = min(int(curve["n"].max()) for curve in curves)
    if n >= statistics.MIN_SPEAKERS:
        return f"Mean and 95 % interval over {n} speakers"
    return f"Mean over {n} speakers, and each speaker"


def draw_curve(
    axes: Axes,
    x: Sequence[float],
    curve: xr.Dataset,
    *,
    positions: Sequence[float] | None = None,
    index: int = 0,
    name: str | None = None,
    random: bool = True,
    alone: bool = True,
) -> None:
    """Draw one curve with its interval (each speaker if too few for one), and the band of its random neurons.

    Colour and marker are those of number `index`. The band is at `x`, the curve at `positions` (default: `x`). Random
    neurons are grey if the curve is `alone` in the panel, and otherwise in its colour.
    """
    if curve["mean"].ndim != 1:
        raise ValueError(f"a curve needs one dim, and this one has {', '.join(curve['mean'].dims)}: pick with .sel(…)")
    if positions is None:
        positions = x
    color = style.color(index)
    if random:
        _draw_random(axes, x, curve, color, name, alone)
    draw_speakers_if_few(axes, positions, curve, color=color, ms=5)
    style.interval(axes, positions, curve, color=color, marker=style.marker(index), ms=5, label=name)


def draw_speakers_if_few(axes: Axes, positions: Sequence[float], curve: xr.Dataset, **options) -> None:
    """Draw a dot for each speaker of a curve, if they are too few for an interval."""
    if curve["n"].max() < statistics.MIN_SPEAKERS:
        axes.plot(positions, curve["speakers"].transpose(..., "speaker"), ".", alpha=0.5, **options)


def _draw_random(axes, x, curve, color, name, alone):
    """Draw band and mean of the random neurons of a curve, where there are any."""
    low = curve["random_low"].values
    high = curve["random_high"].values
    has_band = np.isfinite(low)
    if has_band.any():
        if alone:
            band_style = {"color": style.RANDOM_COLOR, "alpha": 0.6, "lw": 0}
            label = _BAND
        else:
            band_style = {"color": color, "alpha": 0.2, "lw": 0}
            label = f"{name}: 95 % of random sets"
        axes.fill_between(x, low, high, **band_style, label=label)
        # A band without neighbours would have no width.
        neighbour_before = np.r_[False, has_band[:-1]]
        neighbour_after = np.r_[has_band[1:], False]
        for i in np.flatnonzero(has_band & ~neighbour_before & ~neighbour_after):
            axes.fill_between(x[i] + np.array([-0.15, 0.15]), low[i], high[i], **band_style)
    if np.isfinite(curve["random_mean"]).any():
        label = None
        if alone and not has_band.any():
            label = "mean of random sets (too few for a band)"
        axes.plot(x, curve["random_mean"], color="#777777" if alone else color, lw=1, ls=":", label=label)
