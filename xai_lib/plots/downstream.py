"""Figures of what an edit of neurons does further on: classes, readouts, later layers; and of the input behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .. import ablation, results, statistics
from . import style
from .ablation import EDIT_DIM_LABELS, NOT_SIGNIFICANT, draw_speakers_if_few, edit_dim, of_mode, speakers_title

_HATCHED = f"hatched: {NOT_SIGNIFICANT}"
_COLOR_LIMIT = 4  # of `readout_map`, in half-widths of the random neurons' band; colours saturate there
_GROUP_COLORS = ("#DDDDDD", "#EEEEEE")

# ---------- effects as tiles


def effect_map(
    effects: xr.Dataset,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    validity: xr.Dataset | None = None,
    unit: str = "change of log-odds (nats)",
    ax: Axes | None = None,
) -> Figure:
    """Plot effects of an edit as tiles, one row per edited layer (or group); hatched where not significant.

    `readout_map` is the same for effects of different units.

    Parameters
    ----------
    effects : Dataset
        As returned by `ablation.effect_over_speakers`: [layer, column], where the column is any dim, such as `label`.
    groups : dict, optional
        Names of layers, {"early 0–2": [0, 1, 2], …}, as returned by `ablation.groups`, shown beside them.
    validity : Dataset, optional
        As returned by `acoustic_decoders.validity`: adds R² of the decoder at the readout layer to the column names.
    ax : Axes, optional
        Draw into these axes.

    Raises
    ------
    ValueError
        Dims other than [layer, column].
    """
    effects = _by_edit(effects)
    means = effects["mean"].values
    largest = np.nanmax(np.abs(means), initial=1e-3)
    n_rows, _ = means.shape
    column = effects["mean"].dims[1]
    names = [str(name) + r2 for name, r2 in zip(effects[column].values, cycle(_r2_notes(effects, validity)))]

    figure, axes = style.panel(ax, height=1.6 + 0.27 * n_rows)
    image = _draw_effects(axes, effects, means, largest=largest, limit=largest)
    style.name_columns(axes, names)
    _draw_groups(axes, effects, groups or {})
    axes.set_xlabel(_HATCHED, fontsize=9)
    figure.colorbar(image, ax=axes, label=unit)
    return figure


def readout_map(
    effects: Mapping[str, xr.Dataset],
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    validity: xr.Dataset | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Plot effects of an edit on several readouts as tiles: a row per edited layer (or group), a column per readout.

    As units differ, a column is coloured by its deviation from the mean of random neurons, in half-widths of their 95 %
    band (root mean square over layers), and is as white as no deviation where they have no band. The numbers on the
    tiles are the effects themselves; hatched where not significant.

    Parameters
    ----------
    effects : dict
        Results of `ablation.effect_over_speakers` [layer], by name and unit: {"F0 (semitones)": …}.
    groups, validity, ax
        As for `effect_map`.

    Raises
    ------
    ValueError
        A result has more dims than [layer], or no random neurons.
    """
    names = []
    columns = []
    for name, effect in effects.items():
        names.append(name + _r2_notes(effect, validity)[0])
        columns.append(effect.drop_vars("speakers").reset_coords(drop=True))
    effects = _by_edit(xr.concat(columns, xr.DataArray(names, dims="column", name="column"), combine_attrs="drop"))
    row = effects["mean"].dims[0]
    if (effects["mean"].notnull() & effects["random_mean"].isnull()).any():
        raise ValueError(
            "columns of different units are coloured relative to random neurons: run the sweep with RandomControls"
        )
    half_width = (effects["random_high"] - effects["random_low"]) / 2
    deviation = effects["difference"] / np.sqrt((half_width**2).mean(row))
    peak = np.nanmax(np.abs(deviation.values), initial=1e-3)
    limit = min(peak, _COLOR_LIMIT) if deviation.notnull().any() else _COLOR_LIMIT
    colors = deviation.fillna(0).where(effects["mean"].notnull())
    largest = np.nanmax(np.abs(effects["mean"].values), axis=0, initial=1e-3)  # of each column

    figure, axes = style.panel(ax, height=2.5 + 0.27 * len(deviation))
    image = _draw_effects(axes, effects, colors.values, largest=largest, limit=limit)
    style.name_columns(axes, names, **style.SLANTED)
    _draw_groups(axes, effects, groups or {})
    axes.set_xlabel(f"numbers: the effect, in the unit of its column\n{_HATCHED}", fontsize=9)
    unit = "deviation from random neurons\n(half-widths of their 95 % band)"
    figure.colorbar(image, ax=axes, label=unit, extend="both" if peak > limit else "neither")
    return figure


def _by_edit(effects):
    """Return effects with the dims [layer or group, column]; raise ValueError if they have others."""
    row = _row(effects)
    if effects["mean"].ndim != 2 or row not in effects["mean"].dims:
        raise ValueError(
            f"tiles need the dims [layer, column], not {list(effects['mean'].dims)}: pick from the others with .sel(…)"
        )
    return effects.transpose(row, ...)


def _row(effects):
    """Return the dim of the edits."""
    return "group" if "group" in effects.dims else "layer"


def _r2_notes(effects, validity):
    """Return the decoder's R² as text for each column, or one for all; an empty text where nothing is decoded."""
    if validity is None or not {"feature", "readout_layer"} <= set(effects.coords):
        return [""]
    scores = validity["mean"].sel(layer=effects["readout_layer"], feature=effects["feature"])
    return [f"\nR² {r2:.1f}" for r2 in np.atleast_1d(scores)]


def _draw_effects(axes, effects, values, *, largest, limit):
    """Draw effects [layer or group, column] as numbered tiles, coloured by `values`; return the image.

    Numbers have two significant digits of the `largest` effect, of all or of each column. Colours saturate at ±
    `limit`.
    """
    row = _row(effects)
    means = effects["mean"].values
    digits = np.maximum(1 - np.floor(np.log10(largest)), 0).astype(int)
    text = _number(means, digits)
    image = style.tiles(axes, values, text=text, fontsize=8, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
    style.hatch(axes, np.isfinite(means) & ~(effects["q"].values < 0.05), "//")
    style.name_rows(axes, effects[row].values)
    axes.set(title=_title_with_reason(effects), ylabel=EDIT_DIM_LABELS[row])
    return image


@np.vectorize
def _number(value, digits):
    """Return a number as text without a negative zero; an empty text where not finite."""
    if not np.isfinite(value):
        return ""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _title_with_reason(effects):
    """Return the title: the number of speakers and, where nothing was tested, why."""
    n = int(effects["n"].max())
    title = f"Mean over {n} speakers"
    if effects["q"].notnull().any():
        return title
    if n < statistics.MIN_SPEAKERS:
        return f"{title}; fewer than {statistics.MIN_SPEAKERS} speakers: no test"
    return f"{title}; too few or too similar random sets: no test"


def _draw_groups(axes, effects, groups):
    """Draw the names of groups of layers beside the tiles, each on a grey bar along its rows."""
    layers = effects[_row(effects)].values
    options = {"transform": axes.get_yaxis_transform()}
    for name, color in zip(groups, cycle(_GROUP_COLORS)):
        rows = [row for row, layer in enumerate(layers) if layer in groups[name]]
        for row in rows:
            axes.add_patch(Rectangle((-0.18, row), 0.12, 1, lw=0, clip_on=False, color=color, **options))
        if rows:
            axes.text(-0.12, np.mean(rows) + 0.5, name, ha="center", va="center", fontsize=8, **options)
    if groups:
        axes.yaxis.set_label_coords(-0.2, 0.5)


# ---------- later layers


def relative_change(sweep: xr.Dataset, *, mode: str = "flip") -> Figure:
    """Plot how far, and in how many frames, each later layer changes when a layer is edited.

    `sweep` is as returned by `ablation.sweep`; for an edit of part "hidden_state" the diagonal is the edit itself.
    """
    relative_change = of_mode(sweep, "relative_change", mode)
    frames_changed = of_mode(sweep, "frames_changed", mode)
    figure, (change_axes, frame_axes) = style.panels(1, 2, height=3.8, sharey=True)
    _draw_layers(change_axes, relative_change, "Relative change ‖h′ − h‖ / ‖h‖", vmin=0)
    _draw_layers(frame_axes, frames_changed, "Share of frames changed by over 10 %", vmin=0, vmax=1)
    change_axes.set_ylabel(EDIT_DIM_LABELS[edit_dim(relative_change, "readout_layer")])
    return figure


def _draw_layers(axes, values, title, *, digits=2, significant=None, **limits):
    """Draw [layer or group, readout layer] as numbered tiles.

    They are empty where not finite, and hatched where `significant` is False.
    """
    row = edit_dim(values, "readout_layer")
    values = values.transpose(row, "readout_layer")
    text = _number(values.values, digits)
    if values.size > 120:  # so many numbers would be unreadable
        text = None
    image = style.tiles(axes, values.values, text=text, fontsize=8, **limits)
    if text is None:
        axes.figure.colorbar(image, ax=axes)
    if significant is not None:
        not_significant = values.notnull() & ~significant
        style.hatch(axes, not_significant.transpose(*values.dims).values)
    style.name_columns(axes, values["readout_layer"].values)
    style.name_rows(axes, values[row].values)
    axes.set_xlabel("readout layer")
    axes.set_title(title, fontsize=10)


_MEASURES = {
    "relative_change": "relative change ‖h′ − h‖ / ‖h‖",
    "frames_changed": "share of frames changed by over 10 %",
}


def distance(sweep: xr.Dataset) -> Figure:
    """Plot how far, and in how many frames, later layers change, by distance from the edited layer; a line per mode.

    `sweep` is as returned by `ablation.sweep`, layer by layer. At each distance the mean is over the edited layers that
    have a layer that far above: the largest distance has the first layer alone. Dotted: random neurons.

    Raise ValueError if the sweep edited groups of layers.
    """
    if edit_dim(sweep["relative_change"], "mode", "readout_layer", "clip", "neuron_set") == "group":
        raise ValueError(
            "distances are between single layers, and this sweep edited groups: run the sweep without groups"
        )
    figure, panels = style.panels(1, 2, height=4.2)
    for axes, (variable, label) in zip(panels, _MEASURES.items()):
        values = ablation.distance(sweep, variable)
        units = statistics.by_speaker(ablation.selected_values(values))
        curves = statistics.over_speakers(units).assign(speakers=units)
        random = ablation.control_values(values, "random")
        random_units = statistics.by_speaker(random)
        _draw_distances(axes, curves, random_units.mean(["speaker", "random"]))
        axes.set(xlabel="layers between edit and readout", ylabel=label, xticks=curves["distance"].values)
        axes.set_ylim(0, 1.05 if variable == "frames_changed" else None)
    title = speakers_title(curves)
    if random.sizes["random"]:
        title += ". Dotted: random neurons"
    style.heading(figure, title)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def _draw_distances(axes, curves, random_mean):
    """Draw a curve by distance for each mode, with its interval (or each speaker), and the mean of random neurons."""
    modes = curves["mode"].values.tolist()
    distances = curves["distance"].values
    for index, shift in enumerate(style.apart(len(modes), 0.04 * len(modes))):
        curve = curves.sel(mode=modes[index])
        color = style.color(index)
        positions = distances + shift
        axes.plot(distances, random_mean.sel(mode=modes[index]), color=color, lw=1, ls=":")
        draw_speakers_if_few(axes, positions, curve, color=color, ms=4)
        style.interval(axes, positions, curve, color=color, marker=style.marker(index), ms=4, label=modes[index])


_PROXY_NAMES = {"rms": "RMS proxy", "zcr": "ZCR proxy", "centroid": "Centroid proxy"}


def proxy_changes(changes: xr.Dataset, validity: xr.Dataset) -> Figure:
    """Plot activation proxies at layers after the edit, and how well each tracks the feature it is named after.

    `changes` is as returned by `ablation.effect_over_speakers(sweep, "proxy_sd")` for one mode; tiles with q ≥ 0.05, or
    without q, are hatched. `validity` is as returned by `activation_proxies.validity`.
    """
    names = changes["proxy"].values.tolist()
    figure, panels = style.panels(2, len(names), height=5.4, height_ratios=(4, 1), sharex=True)
    largest = np.nanmax(np.abs(changes["mean"].values), initial=1e-3)
    options = {"digits": 1, "cmap": style.DIVERGING, "vmin": -largest, "vmax": largest}
    for change_axes, validity_axes, name in zip(panels[0], panels[1], names):
        change = changes.sel(proxy=name)
        title = f"{_PROXY_NAMES[name]}, change in SD"
        _draw_validity(validity_axes, validity.sel(proxy=name))
        _draw_layers(change_axes, change["mean"], title, significant=change["q"] < 0.05, **options)
        change_axes.set_xlabel("")
    panels[0, 0].set_ylabel(EDIT_DIM_LABELS[edit_dim(changes["mean"], "proxy", "readout_layer")])
    panels[1, 0].set_ylabel("rank corr.\nwith feature")
    figure.supxlabel(_HATCHED, fontsize=9)
    return figure


def _draw_validity(axes, validity):
    """Draw the correlation of a proxy with its feature by layer, below the tiles of that layer, with its interval."""
    positions = np.arange(validity.sizes["layer"]) + 0.5
    axes.bar(positions, validity["mean"], color=style.RANDOM_COLOR)
    style.interval(axes, positions, validity, color="black", ls="")
    axes.axhline(0, color="black", lw=0.6)
    axes.set(ylim=(-1, 1), xlabel="readout layer")


# ---------- the input that would give the edited output


def upstream(result: xr.Dataset) -> Figure:
    """Plot how far the input must move for a layer to return the edited output, and the share of the edit not reached.

    `result` is as returned by `inversion.upstream`. Points: each random set. Hatched: the output was reached in less
    than half of the clips. Intervals are over speakers, from 8 up; with fewer, a dash for each.
    """
    modes = result["mode"].values.tolist()
    layers = result["layer"].values
    width = 0.8 / len(modes)
    figure, (distance_axes, residual_axes) = style.panels(2, height=5, height_ratios=(3, 2), sharex=True)
    for index, mode in enumerate(modes):
        mode_result = result.sel(mode=mode)
        positions = layers + width * (index - (len(modes) - 1) / 2)
        _draw_inputs(distance_axes, positions, mode_result, "distance", width, style.color(index))
        _draw_inputs(residual_axes, positions, mode_result, "residual", width, style.color(index))
        floor = results.average(ablation.selected_values(mode_result["floor"]))
        residual_axes.hlines(floor, positions - width / 2, positions + width / 2, color="black", lw=1.6)

    tolerance = result.attrs["tolerance"]
    distance_axes.set(ylabel="distance of the input\n‖x′ − x‖ / ‖x‖", ylim=(0, None))
    distance_axes.set_title(f"Input for an edited output: mean over {results.units(result['distance']).dims[0]}s")
    residual_axes.axhline(tolerance, color="gray", lw=0.8, ls=":")
    residual_axes.set(xlabel="edited layer", ylabel="residual\n(share of the edit)", xticks=layers)
    residual_axes.set_ylim(0, max(residual_axes.get_ylim()[1], 4 * tolerance))

    handles = [Patch(color=color, alpha=0.55, label=mode) for mode, color in zip(modes, style.COLORS)]
    handles += distance_axes.plot([], [], ".", color="#444444", label="size-matched random neurons")
    handles.append(residual_axes.hlines([], 0, 0, color="black", label="floor: out of reach of the layer norm"))
    handles += residual_axes.plot([], [], color="gray", lw=0.8, ls=":", label="tolerance")
    handles.append(Patch(facecolor="gray", hatch="///", edgecolor="white", label="not reached"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)
    return figure


def _draw_inputs(axes, positions, result, variable, width, color):
    """Draw a bar per layer for one mode, with the interval over speakers (or each speaker), and each random set."""
    selected = ablation.selected_values(result[variable])
    bars = axes.bar(positions, results.average(selected), 0.92 * width, color=color, alpha=0.55)
    reached = results.average(ablation.selected_values(result["reached"]).astype(float)).values
    for bar, share in zip(bars, reached):
        if share < 0.5:
            bar.set(hatch="///", edgecolor="white", linewidth=0)

    units = results.units(selected)
    if "speaker" in units.dims and units.sizes["speaker"] >= statistics.MIN_SPEAKERS:
        style.interval(axes, positions, statistics.over_speakers(units), color=color, ls="")
    else:
        axes.plot(positions, units.transpose(..., "layer").values.T, "_", color=color, ms=9)
    random = ablation.control_values(result[variable], "random")
    random_values = results.average(random).transpose("layer", "random").values
    random_positions = positions[:, None] + style.apart(random_values.shape[1], 0.25 * width)
    axes.plot(random_positions, random_values, ".", color="#444444", ms=3)
