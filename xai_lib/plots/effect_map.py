from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.patches import Rectangle

from .. import statistics
from . import style

_COLOR_LIMIT = 4  # in half-widths of the random neurons' band; colours saturate there


def effect_map(effects, *, groups=None, validity=None, unit="change of log-odds (nats)"):
    """Plot effects of an edit as tiles, one row per edited layer (or group); hatched where not significant.

    Parameters
    ----------
    effects : Dataset or dict
        As returned by `ablation.effect_over_speakers`: [layer, column], where the column is any dim, such as `label`; or several
        [layer] by name and unit, {"F0 (semitones)": …}, a column each. As units then differ, a column is coloured by
        its deviation from the mean of random neurons, in half-widths of their 95 % band (root mean square over layers).
        The numbers on the tiles are the effects themselves.
    groups : dict, optional
        Names of layers, {"early 0–2": [0, 1, 2], …}, as returned by `ablation.groups`, shown beside them.
    validity : Dataset, optional
        As returned by `acoustic_decoders.validity`: adds R² of the decoder at the readout layer to the column names.

    Raises
    ------
    ValueError
        Dims other than [layer, column], or columns of different units without random neurons.
    """
    mixed = not isinstance(effects, xr.Dataset)
    r2_labels = [r2 for effect in (effects.values() if mixed else [effects]) for r2 in _r2(effect, validity)]
    if mixed:
        parts = [effect.drop_vars("speakers").reset_coords(drop=True) for effect in effects.values()]
        effects = xr.concat(parts, xr.DataArray([*effects], dims="column", name="column"), combine_attrs="drop")
        unit = "deviation from random neurons\n(half-widths of their 95 % band)"
    row = "group" if "group" in effects.dims else "layer"
    if effects["mean"].ndim != 2 or row not in effects["mean"].dims:
        raise ValueError(
            f"tiles need the dims [layer, column], not {list(effects['mean'].dims)}: pick from the others with .sel(…)"
        )
    effects = effects.transpose(row, ...)
    rows, names = ([*map(str, effects[dim].values)] for dim in effects["mean"].dims)
    names = [f"{name}{r2}" for name, r2 in zip(names, cycle(r2_labels))]
    means = colored = effects["mean"].values
    if mixed:
        half_width = (effects["random_high"] - effects["random_low"]) / 2
        colored = (effects["difference"] / np.sqrt((half_width**2).mean(row))).values
        if (effects["mean"].notnull() & effects["random_mean"].isnull()).any():
            raise ValueError(
                "columns of different units are coloured relative to random neurons: run the sweep with n_random"
            )
    peak, largest = (
        np.nanmax(np.abs(colored), initial=1e-3),
        np.nanmax(np.abs(means), axis=0 if mixed else None, initial=1e-3),
    )
    digits = np.maximum(1 - np.floor(np.log10(largest)), 0).astype(int)  # two significant digits of the largest value
    text = np.vectorize(lambda value, n: f"{round(value, n) + 0.0:.{n}f}" if np.isfinite(value) else "")(means, digits)
    limit = (min(peak, _COLOR_LIMIT) if np.isfinite(colored).any() else _COLOR_LIMIT) if mixed else peak
    figure, axes = style.panels(height=1.6 + 0.27 * len(rows) + 0.9 * mixed)
    image = style.tiles(axes, colored, text, fontsize=8, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
    for i, j in np.argwhere(np.isfinite(means) & ~(effects["q"].values < 0.05)):
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="//", ec="#555555", lw=0))
    tick_options = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if mixed else {}
    axes.set_xticks(range(len(names)), names, parse_math=False, **tick_options)
    axes.set_yticks(range(len(rows)), rows)
    n, tested = int(effects["n"].max()), effects["q"].notnull().any()
    reason = (
        f"fewer than {statistics.MIN_SPEAKERS} speakers"
        if n < statistics.MIN_SPEAKERS
        else "too few or too similar random sets"
    )
    axes.set(
        title=f"Mean over {n} speakers" + ("" if tested else f"; {reason}: no test"), ylabel=style.EDIT_DIM_LABELS[row]
    )
    for index, (name, layers) in enumerate((groups or {}).items()):
        group_rows = [i for i, layer in enumerate(effects[row].values) if layer in layers]
        options = {
            "transform": axes.get_yaxis_transform(),
            "clip_on": False,
            "color": ("#DDDDDD", "#EEEEEE")[index % 2],
        }
        for i in group_rows:
            axes.add_patch(Rectangle((-0.18, i - 0.5), 0.12, 1, lw=0, **options))
        if group_rows:
            axes.text(
                -0.12, np.mean(group_rows), name, ha="center", va="center", fontsize=8, transform=options["transform"]
            )
        axes.yaxis.set_label_coords(-0.2, 0.5)
    figure.colorbar(image, ax=axes, label=unit, extend="both" if peak > limit else "neither")
    numbers = "numbers: the effect, in the unit of its column; " if mixed else ""
    figure.supxlabel(f"{numbers}hatched: n.s. against random neurons (q ≥ 0.05), or not tested", fontsize=9)
    return figure


def _r2(effects, validity):
    """Return the decoder's R² as text for each column, or for the only one; an empty text where nothing is decoded."""
    if validity is None or not {"feature", "readout_layer"} <= set(effects.coords):
        return [""]
    scores = validity["mean"].sel(layer=effects["readout_layer"], feature=effects["feature"])
    return [f"\nR² {r2:.1f}" for r2 in np.atleast_1d(scores)]
