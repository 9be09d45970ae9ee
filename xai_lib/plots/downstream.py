from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from .. import statistics
from . import style

NOTE = "hatched: n.s. against random neurons (q ≥ 0.05), or not tested"
_GROUP_COLORS = ("#DDDDDD", "#EEEEEE")


def effect_map(
    effects: xr.Dataset,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    validity: xr.Dataset | None = None,
    unit: str = "change of log-odds (nats)",
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

    Raises
    ------
    ValueError
        Dims other than [layer, column].
    """
    effects = by_edit(effects)
    means = effects["mean"].values
    largest = np.nanmax(np.abs(means), initial=1e-3)
    n_rows, n_columns = means.shape
    column = effects["mean"].dims[1]
    names = [str(name) + r2 for name, r2 in zip(effects[column].values, cycle(r2_notes(effects, validity)))]

    figure, axes = style.panels(height=1.6 + 0.27 * n_rows)
    image = draw_effects(axes, effects, means, largest=largest, limit=largest)
    axes.set_xticks(range(n_columns), names, parse_math=False)
    draw_groups(axes, effects, groups or {})
    figure.colorbar(image, ax=axes, label=unit)
    figure.supxlabel(NOTE, fontsize=9)
    return figure


def by_edit(effects: xr.Dataset) -> xr.Dataset:
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


def r2_notes(effects: xr.Dataset, validity: xr.Dataset | None) -> list[str]:
    """Return the decoder's R² as text for each column, or one for all; an empty text where nothing is decoded."""
    if validity is None or not {"feature", "readout_layer"} <= set(effects.coords):
        return [""]
    scores = validity["mean"].sel(layer=effects["readout_layer"], feature=effects["feature"])
    return [f"\nR² {r2:.1f}" for r2 in np.atleast_1d(scores)]


def draw_effects(
    axes: Axes, effects: xr.Dataset, values: np.ndarray, *, largest: float | np.ndarray, limit: float
) -> AxesImage:
    """Draw effects [layer or group, column] as numbered tiles, coloured by `values`; return the image.

    Numbers have two significant digits of the `largest` effect, of all or of each column. Colours saturate at ±
    `limit`.
    """
    row = _row(effects)
    means = effects["mean"].values
    digits = np.maximum(1 - np.floor(np.log10(largest)), 0).astype(int)
    text = _number(means, digits)
    image = style.tiles(axes, values, text, fontsize=8, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
    style.hatch(axes, np.isfinite(means) & ~(effects["q"].values < 0.05), "//")
    axes.set_yticks(range(len(means)), [str(name) for name in effects[row].values])
    axes.set(title=_title(effects), ylabel=style.EDIT_DIM_LABELS[row])
    return image


@np.vectorize
def _number(value, digits):
    """Return a number as text without a negative zero; an empty text where not finite."""
    if not np.isfinite(value):
        return ""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _title(effects):
    """Return the title: the number of speakers and, where nothing was tested, why."""
    n = int(effects["n"].max())
    title = f"Mean over {n} speakers"
    if effects["q"].notnull().any():
        return title
    if n < statistics.MIN_SPEAKERS:
        return f"{title}; fewer than {statistics.MIN_SPEAKERS} speakers: no test"
    return f"{title}; too few or too similar random sets: no test"


def draw_groups(axes: Axes, effects: xr.Dataset, groups: Mapping[str, Sequence[int]]) -> None:
    """Draw the names of groups of layers beside the tiles, each on a grey bar along its rows."""
    layers = effects[_row(effects)].values
    options = {"transform": axes.get_yaxis_transform()}
    for name, color in zip(groups, cycle(_GROUP_COLORS)):
        rows = [row for row, layer in enumerate(layers) if layer in groups[name]]
        for row in rows:
            axes.add_patch(Rectangle((-0.18, row - 0.5), 0.12, 1, lw=0, clip_on=False, color=color, **options))
        if rows:
            axes.text(-0.12, np.mean(rows), name, ha="center", va="center", fontsize=8, **options)
    if groups:
        axes.yaxis.set_label_coords(-0.2, 0.5)
