from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.patches import Rectangle

from .. import statistics
from . import style

_MOST = 4  # half-widths of a null's band: colours beyond are the same


def effect_map(effects, *, groups=None, validity=None, unit="change of log-odds (nats)"):
    """Effects of an edit as tiles, a row for each edited layer (or group); hatched where not told from random neurons.

    Parameters
    ----------
    effects : Dataset or dict
        Of `ablation.summary`: [layer, column], where the column is any dim, such as `label`; or, by name and unit,
        several [layer], {"F0 (semitones)": …}, a column each. As units then differ, a column is coloured by how far it
        is from the mean of random neurons, in half-widths of their 95 % band (root mean square over layers). On the
        tiles stands the effect itself.
    groups : dict, optional
        Names of layers, {"early 0–2": [0, 1, 2], …}, as of `ablation.groups`, shown beside them.
    validity : Dataset, optional
        Of `decoders.validity`: R² of what is decoded, at the layer that is read, goes beside the names of the columns.
    """
    mixed = not isinstance(effects, xr.Dataset)
    track = [r2 for one in (effects.values() if mixed else [effects]) for r2 in _r2(one, validity)]
    if mixed:
        parts = [one.drop_vars("speakers").reset_coords(drop=True) for one in effects.values()]
        effects = xr.concat(parts, xr.DataArray([*effects], dims="column", name="column"), combine_attrs="drop")
        unit = "beyond random neurons, in half-\nwidths of their 95 % band"
    row = "group" if "group" in effects.dims else "layer"
    if effects["mean"].ndim != 2 or row not in effects["mean"].dims:
        raise ValueError(f"tiles are [layer, column], not {list(effects['mean'].dims)}: pick from others with .sel(…)")
    effects = effects.transpose(row, ...)
    rows, names = ([*map(str, effects[dim].values)] for dim in effects["mean"].dims)
    names = [f"{name}{r2}" for name, r2 in zip(names, cycle(track))]
    grid = shown = effects["mean"].values
    if mixed:
        half = (effects["null_high"] - effects["null_low"]) / 2
        shown = (effects["difference"] / np.sqrt((half**2).mean(row))).values
        if (effects["mean"].notnull() & effects["null_mean"].isnull()).any():
            raise ValueError("columns of different units are coloured by their nulls: run the sweep with nulls")
    most, largest = (
        np.nanmax(np.abs(shown), initial=1e-3),
        np.nanmax(np.abs(grid), axis=0 if mixed else None, initial=1e-3),
    )
    digits = np.maximum(1 - np.floor(np.log10(largest)), 0).astype(int)  # two of the largest
    text = np.vectorize(lambda x, n: f"{round(x, n) + 0.0:.{n}f}" if np.isfinite(x) else "")(grid, digits)
    limit = (min(most, _MOST) if np.isfinite(shown).any() else _MOST) if mixed else most
    figure, axes = style.panels(height=1.6 + 0.27 * len(rows) + 0.9 * mixed)
    image = style.tiles(axes, shown, text, fontsize=8, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
    for i, j in np.argwhere(np.isfinite(grid) & ~(effects["q"].values < 0.05)):
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="//", ec="#555555", lw=0))
    turn = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if mixed else {}
    axes.set_xticks(range(len(names)), names, parse_math=False, **turn)
    axes.set_yticks(range(len(rows)), rows)
    n, tested = int(effects["n"].max()), effects["q"].notnull().any()
    why = (
        f"fewer than {statistics.FEWEST} speakers"
        if n < statistics.FEWEST
        else "random sets too few, or too much alike"
    )
    axes.set(title=f"Mean over {n} speakers" + ("" if tested else f"; {why}: no test"), ylabel=style.EDITED[row])
    for place, (name, layers) in enumerate((groups or {}).items()):
        at = [i for i, layer in enumerate(effects[row].values) if layer in layers]
        look = {"transform": axes.get_yaxis_transform(), "clip_on": False, "color": ("#DDDDDD", "#EEEEEE")[place % 2]}
        for i in at:
            axes.add_patch(Rectangle((-0.18, i - 0.5), 0.12, 1, lw=0, **look))
        if at:
            axes.text(-0.12, np.mean(at), name, ha="center", va="center", fontsize=8, transform=look["transform"])
        axes.yaxis.set_label_coords(-0.2, 0.5)
    figure.colorbar(image, ax=axes, label=unit, extend="both" if most > limit else "neither")
    numbers = "numbers: the effect, in the unit of its column; " if mixed else ""
    figure.supxlabel(f"{numbers}hatched: not told from random neurons (q ≥ 0.05), or not tested", fontsize=9)
    return figure


def _r2(effects, validity):
    """R² of what is decoded, as text: of each column, or of the one."""
    if validity is None or not {"feature", "later"} <= set(effects.coords):
        return [""]
    at = validity["mean"].sel(layer=effects["later"], feature=effects["feature"])
    return [f"\nR² {r2:.1f}" for r2 in np.atleast_1d(at)]
