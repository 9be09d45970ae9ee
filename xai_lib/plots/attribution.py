"""Figures of attributions: of neurons, of frames and segments, of differences between groups of clips."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import results, statistics
from ..corpora.filenames import EMOTIONS
from . import style

# ---------- neurons


def layer_neuron_map(mean: xr.DataArray, selected: pd.DataFrame | None = None, *, ax: Axes | None = None) -> Figure:
    """Plot the signed attribution of every neuron of every layer as a heat map.

    `mean` is as returned by `attribution.mean_score(…, by="signed")`. Each layer is divided by its largest absolute
    value, printed at the right, since layers differ in scale. Neurons in the table `selected`, as returned by
    `attribution.top_neurons`, are ringed. With `ax`, draw into these axes.
    """
    if not isinstance(mean, xr.DataArray):
        raise ValueError(
            f"mean must be a DataArray [layer, neuron], not a {type(mean).__name__}: pass "
            'attribution.mean_score(scores, by="signed")'
        )
    mean = mean.transpose("layer", "neuron")
    peaks = np.abs(mean.values).max(axis=1)
    divisors = np.where(peaks > 0, peaks, 1)
    layers = mean["layer"].values

    figure, axes = style.panel(ax, height=0.9 + 0.32 * len(layers))
    image = style.tiles(axes, mean.values / divisors[:, None], cmap=style.DIVERGING, vmin=-1, vmax=1)
    for row, peak in enumerate(peaks):
        axes.text(mean.sizes["neuron"] + 0.7, row + 0.5, f" {peak:.2g}", va="center", fontsize=8)
    if selected is not None:
        style.ring(axes, selected, layers)
    style.name_rows(axes, layers)
    style.number_columns(axes, mean.sizes["neuron"])
    axes.set(xlabel="neuron", ylabel="layer")
    axes.set_title("Attribution of each neuron (right: maximum of the layer; ringed: selected)")
    figure.colorbar(image, ax=axes, pad=0.07, label="fraction of the layer's maximum")
    return figure


def agreement_curves(curves: Mapping[str, xr.Dataset], target: str) -> Figure:
    """Plot how far neuron rankings agree with that of a target, layer by layer, for this and for other targets.

    `curves` has a panel each, {title: Dataset returned by `statistics.over_speakers`, with dims `target` and `layer`}.
    The target is drawn bold with its interval, clipped to ± 1; all other targets are its baseline.
    """
    figure, panels = style.panels(1, len(curves), sharey=True, squeeze=False)
    first = next(iter(curves.values()))
    others = [name for name in first["target"].values.tolist() if name != target]
    colors = style.colors([*others, target])
    target_style = {"color": colors[target], "marker": "o", "lw": 3, "capsize": 3, "label": target}
    for axes, (title, curve) in zip(panels[0], curves.items()):
        for name in others:
            axes.plot(curve["layer"], curve["mean"].sel(target=name), color=colors[name], lw=1, label=name)
        target_curve = curve.sel(target=target).clip(-1, 1)
        style.interval(axes, target_curve["layer"], target_curve, **target_style)
        axes.axhline(0, color="black", lw=0.6)
        axes.set(xlabel="layer", title=f"{title} scores", xticks=target_curve["layer"].values)

    n = int(curve["n"].sel(target=target).max())
    title = f"Mean over {n} speakers"
    if n >= statistics.MIN_SPEAKERS:
        title += ", 95 % interval"
    panels[0, 0].set_ylabel("rank correlation over neurons")
    style.heading(figure, title)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", title="same clips,\ntarget")
    return figure


# ---------- frames and segments of one clip


def frame_attribution(
    waveform: np.ndarray, sample_rate: int, shaps: xr.Dataset | Mapping[str, xr.Dataset], *, k: int = 20, name: str = ""
) -> Figure:
    """Plot waveform [time] and spectrogram of one clip and, on the same time axis, its attribution and top frames.

    `shaps` is one clip of the result of `attribution.gradient_shap`, or {baseline: one clip}: each has a panel with its
    own scale and its `k` top frames in yellow. `name` is the clip's name, for the title.
    """
    if isinstance(shaps, xr.Dataset):
        shaps = {shaps.attrs["baseline"]: shaps}
    first = next(iter(shaps.values()))
    n_frames = int(first["n_frames"])
    edges = np.append(np.arange(n_frames) * first.attrs["window"], len(waveform) / sample_rate)

    panel_height = 1.5 if len(shaps) == 1 else 1.1
    heights = [1, 1.3] + [panel_height] * len(shaps)
    figure, panels = style.panels(len(heights), height=1.58 * sum(heights), sharex=True, height_ratios=heights)
    style.waveform(panels[0], waveform, sample_rate)
    style.spectrogram(panels[1], waveform, sample_rate)
    scale = first.attrs["scale"].replace("_", " ")
    for axes, color, baseline in zip(panels[2:], cycle(style.COLORS[:3]), shaps):
        _draw_frames(axes, shaps[baseline], edges, k, color)
        axes.set_title(f"{baseline} baseline ± 1 standard error", color=color, fontsize=10)
        axes.set_ylabel(f"attribution\n({scale})")
    panels[-1].set(xlabel="time (s)", xlim=(0, edges[-1]))
    figure.align_ylabels(panels)

    title = (
        f"target {first['target'].item()}, p = {float(first['target_probability']):.2f}; predicted "
        f"{first['predicted'].item()}, p = {float(first['probability']):.2f}; yellow: top {min(k, n_frames)} frames"
    )
    if name:
        title = f"{name}: {title}"
    panels[0].set_title(title, parse_math=False)  # a file name may contain a dollar sign
    return figure


def _draw_frames(axes, shap, edges, k, color):
    """Draw the attribution of each frame with its standard error, and the top frames in yellow."""
    n_frames = len(edges) - 1
    mean = shap["attribution"].values[:n_frames]
    error = shap["error"].values[:n_frames]
    # The outline keeps a frame visible when it is thinner than a pixel.
    top_style = {"color": style.EMOTION_COLORS["surprised"], "alpha": 0.55, "lw": 1, "zorder": 0}
    for frame in np.argsort(-mean, kind="stable")[:k]:
        axes.axvspan(edges[frame], edges[frame + 1], **top_style)
    axes.stairs(mean + error, edges, baseline=mean - error, fill=True, color=color, alpha=0.3, lw=0)
    axes.stairs(mean, edges, baseline=None, color=color, lw=1.2 if n_frames < 200 else 0.9)
    axes.axhline(0, color="black", lw=0.6)
    # Bands may leave the panel: a single huge draw would otherwise flatten the curve.
    low = np.min(mean, initial=0)
    high = np.max(mean, initial=0)
    if high > low:
        margin = 0.15 * (high - low)
        axes.set_ylim(low - margin, high + margin)


def segment_map(
    response: xr.DataArray, neurons: pd.DataFrame, waveform: np.ndarray, sample_rate: int, *, name: str = ""
) -> Figure:
    """Plot the effect of each segment of one clip on some neurons, below its waveform.

    `response` is one clip of the result of `attribution.segment_response`. The table `neurons` has the columns `layer`
    and `neuron`; each neuron is a row of the image, divided by its largest absolute value, which is printed beside it
    in brackets. `name` is the clip's name, for the title.
    """
    response = response.dropna("segment", how="all")
    rows = []
    labels = []
    for row in neurons.itertuples():
        values = response.sel(layer=row.layer, neuron=row.neuron).values
        peak = np.abs(values).max()
        rows.append(values / np.maximum(peak, 1e-12))
        labels.append(f"{row.layer} : {row.neuron}  (±{peak:.2g})")

    height = 1.9 + 0.2 * len(rows)
    ratios = [1, 0.6 + 0.18 * len(rows)]
    figure, (waveform_axes, map_axes) = style.panels(2, height=height, sharex=True, height_ratios=ratios)
    style.waveform(waveform_axes, waveform, sample_rate)
    title = "activation lost when a segment is replaced"
    waveform_axes.set_title(f"{name}: {title}" if name else title)
    # Segments differ in length: tiles of one width, as in a heat map, would not stand below their sound.
    edges = np.append(response["seconds"].values, len(waveform) / sample_rate)
    image = map_axes.pcolormesh(edges, np.arange(len(rows) + 1), rows, cmap=style.DIVERGING, vmin=-1, vmax=1)
    style.name_rows(map_axes, labels, fontsize=8)
    map_axes.set(xlabel="time (s)", ylabel="layer : neuron (value at ±1)")
    map_axes.invert_yaxis()
    figure.colorbar(image, ax=[waveform_axes, map_axes], label="fraction of the neuron's maximum")
    return figure


def deletion_pairs(drop: xr.DataArray, *, ax: Axes | None = None) -> Figure:
    """Plot the drop of the target when frames are silenced: a line per speaker, and the mean.

    The mean has an interval from 8 speakers up. `drop` is as returned by `deletion_test.frame_deletion`. With `ax`,
    draw into these axes.
    """
    units = results.units(drop)
    mean, low, high = statistics.interval(units.values)
    figure, axes = style.panel(ax, width=0.6 * style.WIDTH)
    positions = range(units.shape[1])
    axes.plot(positions, units.T, color=style.RANDOM_COLOR, lw=0.8, marker="o", ms=3)
    options = {"color": style.EMOTION_COLORS["angry"], "marker": "D", "ls": "", "capsize": 4, "lw": 2}
    style.interval(axes, positions, {"mean": mean, "low": low, "high": high}, **options)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(positions, drop["mode"].values)

    frames = "speech frames" if drop.attrs["frames"] == "speech" else "frames"
    scale = drop.attrs["scale"].replace("_", " ")
    axes.set_xlabel(f"which {drop.attrs['share']:.0%} of the {frames} are silenced")
    axes.set_ylabel(f"drop of the target ({scale})")
    title = f"Grey: {len(units)} {units.dims[0]}s, each a line; red: their mean"
    if np.isfinite(low).all():
        title += " with its 95 % interval"
    axes.set_title(title, fontsize=10)
    return figure


# ---------- groups of clips

_CONTRAST_LABELS = {"cohens_d": "Cohen's d", "auroc": "AUROC", "difference": "difference of activations"}
_CHANCE_LEVELS = {"cohens_d": 0, "auroc": 0.5, "difference": 0}


def contrast_map(
    contrast: xr.Dataset, selected: pd.DataFrame | None = None, *, variable: str = "cohens_d", level: float = 0.05
) -> Figure:
    """Plot how far every neuron of every layer distinguishes two kinds of clips, and the share of each layer that does.

    `contrast` is as returned by `attribution.activation_contrast` or `attribution.compare`, `variable` is "cohens_d",
    "auroc" or "difference". Neurons with q ≥ `level` are pale. Those in the table `selected` (as returned by
    `attribution.top_neurons`) are ringed.
    """
    contrast = contrast.transpose("layer", "neuron")
    layers = contrast["layer"].values
    chance = _CHANCE_LEVELS[variable]
    deviation = contrast[variable] - chance
    largest = float(np.abs(deviation).max())
    tested = bool(contrast["q"].notnull().any())
    significant = contrast["q"] < level
    opacity = np.where(significant | (not tested), 1, 0.25)

    figure, (axes, share_axes) = style.panels(1, 2, height=1.5 + 0.3 * len(layers), width_ratios=(5, 1), sharey=True)
    limits = {"vmin": chance - largest, "vmax": chance + largest}
    image = style.tiles(axes, contrast[variable].values, cmap=style.DIVERGING, alpha=opacity, **limits)
    if selected is not None:
        style.ring(axes, selected, layers)
    style.name_rows(axes, layers)
    style.number_columns(axes, contrast.sizes["neuron"])
    axes.set(xlabel="neuron", ylabel="layer")
    test_note = f"pale, not counted: n.s., q ≥ {level:g}" if tested else "too few for a test"
    axes.set_title(_contrast_title(contrast.attrs, test_note), parse_math=False)
    figure.colorbar(image, ax=axes, label=_CONTRAST_LABELS[variable], location="left", pad=0.02)

    more_active = 100 * (significant & (deviation > 0)).mean("neuron")
    less_active = 100 * (significant & (deviation < 0)).mean("neuron")
    _draw_shares(share_axes, more_active, less_active, image.cmap)
    share_axes.set_visible(tested)
    return figure


def _contrast_title(info, test_note):
    """Return the title: the two kinds of clips, the number of speakers, and what the clips agree in."""
    n_speakers = str(info["speakers_a"])
    if not info["paired"]:
        n_speakers += f" against {info['speakers_b']}"
    contrast = f"{info['a']} against {info['b']}: {n_speakers} speakers"
    return f"{contrast} ({test_note})\nclips that agree in {info['cell']}"


def _draw_shares(axes, more_active, less_active, colors):
    """Draw the share of each layer's neurons that are more active as bars to the right, of less active to the left."""
    rows = np.arange(len(more_active)) + 0.5
    axes.barh(rows, more_active, color=colors(0.9))
    axes.barh(rows, -less_active, color=colors(0.1))
    axes.axvline(0, color="black", lw=0.6)
    axes.xaxis.set_major_formatter(style.unsigned)
    axes.set_xlabel("less | more active\n(% of neurons)")


def neuron_groups(*tables: pd.DataFrame, ylabel: str = "mean activation") -> Figure:
    """Plot one neuron by emotion, sex or intensity: one dot per speaker, a speaker's two dots joined, and the means.

    Each of the `tables` is as returned by `attribution.distribution` and has a panel, which names what its clips agree
    in. Means have a 95 % t interval over speakers from 8 up.
    """
    widths = [0.6 + table.shape[1] for table in tables]
    figure, panels = style.panels(1, len(tables), sharey=True, squeeze=False, width_ratios=widths)
    for axes, table in zip(panels[0], tables):
        _draw_groups(axes, table)
    n = max(len(table) for table in tables)
    info = tables[0].attrs
    title = f"Layer {info['layer']}, neuron {info['neuron']} of {info['part']}: each of {n} speakers, and their mean"
    panels[0, 0].set_ylabel(ylabel)
    panels[0, 0].set_title(title)
    return figure


def _draw_groups(axes, table):
    """Draw each speaker, and mean and interval over speakers, of each column; join the dots of two columns."""
    names = [str(name) for name in table.columns]
    are_emotions = bool(set(names) & set(EMOTIONS))
    colors = style.colors(names) if are_emotions else dict.fromkeys(names, "#777777")
    activations = table.set_axis(names, axis=1).melt(var_name="group", value_name="activation")
    jitter = 0.15
    pairs = table.dropna()
    if len(names) == 2 and len(pairs):
        axes.plot([0, 1], pairs.T, color=style.RANDOM_COLOR, lw=0.8, zorder=0)
        jitter = 0  # the dots stand at the ends of their lines
    style.strip(
        activations,
        x="group",
        y="activation",
        hue="group",
        palette=colors,
        jitter=jitter,
        size=4.5,
        edgecolor="black",
        linewidth=0.3,
        alpha=0.85,
        ax=axes,
    )

    mean, low, high = statistics.interval(table.to_numpy(float))
    positions = np.arange(len(names)) + 0.3
    style.interval(axes, positions, {"mean": mean, "low": low, "high": high}, fmt="D", color="black", ms=4)
    tick_options = style.SLANTED if len(names) > 3 else {}
    axes.set_xticks(range(len(names)), names, parse_math=False, **tick_options)
    axes.set_xlim(-0.5, len(names) - 0.3)
    xlabel = f"{table.columns.name}"
    if "cell" in table.attrs:
        xlabel += f"\nclips agree in\n{table.attrs['cell']}"
    axes.set_ylabel("")
    axes.set_xlabel(xlabel, parse_math=False, fontsize="small")
