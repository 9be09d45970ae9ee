from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style
from .downstream import NOTE, by_edit, draw_effects, draw_groups, r2_notes

_COLOR_LIMIT = 4  # in half-widths of the random neurons' band; colours saturate there


def readout_map(
    effects: Mapping[str, xr.Dataset],
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    validity: xr.Dataset | None = None,
) -> Figure:
    """Plot effects of an edit on several readouts as tiles: a row per edited layer (or group), a column per readout.

    As units differ, a column is coloured by its deviation from the mean of random neurons, in half-widths of their 95 %
    band (root mean square over layers). The numbers on the tiles are the effects themselves; hatched where not
    significant.

    Parameters
    ----------
    effects : dict
        Results of `ablation.effect_over_speakers` [layer], by name and unit: {"F0 (semitones)": …}.
    groups, validity
        As for `effect_map`.

    Raises
    ------
    ValueError
        A result has more dims than [layer], or no random neurons.
    """
    names = []
    columns = []
    for name, effect in effects.items():
        names.append(name + r2_notes(effect, validity)[0])
        columns.append(effect.drop_vars("speakers").reset_coords(drop=True))
    effects = by_edit(xr.concat(columns, xr.DataArray(names, dims="column", name="column"), combine_attrs="drop"))
    row = effects["mean"].dims[0]
    if (effects["mean"].notnull() & effects["random_mean"].isnull()).any():
        raise ValueError(
            "columns of different units are coloured relative to random neurons: run the sweep with RandomControls"
        )
    half_width = (effects["random_high"] - effects["random_low"]) / 2
    deviation = (effects["difference"] / np.sqrt((half_width**2).mean(row))).values
    peak = np.nanmax(np.abs(deviation), initial=1e-3)
    limit = min(peak, _COLOR_LIMIT) if np.isfinite(deviation).any() else _COLOR_LIMIT
    largest = np.nanmax(np.abs(effects["mean"].values), axis=0, initial=1e-3)  # of each column

    figure, axes = style.panels(height=2.5 + 0.27 * len(deviation))
    image = draw_effects(axes, effects, deviation, largest=largest, limit=limit)
    tick_options = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, parse_math=False, **tick_options)
    draw_groups(axes, effects, groups or {})
    unit = "deviation from random neurons\n(half-widths of their 95 % band)"
    figure.colorbar(image, ax=axes, label=unit, extend="both" if peak > limit else "neither")
    figure.supxlabel(f"numbers: the effect, in the unit of its column; {NOTE}", fontsize=9)
    return figure
