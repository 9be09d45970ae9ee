import numpy as np

from . import style


def over_time(result, *, clip=None, most=4):
    """The course of each class through a recording: its probability in each window, at the window's middle.

    Parameters
    ----------
    result : Dataset
        As returned by `Model.over_time`.
    clip
        Which recording, by its index; the first by default.
    most : int
        The classes of the greatest probability anywhere are drawn in colour, so many of them, and every one that comes
        first in some window; the others are grey.
    """
    one = result.sel(clip=result["clip"].values[0] if clip is None else clip)
    one = one.isel(window=np.isfinite(one["time"].values))
    probability = one["probability"]
    greatest = probability.max("window").fillna(0).to_series().sort_values(ascending=False)
    first = probability.dropna("window", how="all").idxmax("target").values
    shown = {*greatest.index[:most], *first}
    colors = style.colors([str(name) for name in probability["target"].values])

    figure, axes = style.panels(height=3.2)
    for name in reversed(greatest.index):
        look = {"color": colors[name], "label": name} if name in shown else {"color": style.NULL_COLOR, "lw": 0.8}
        axes.plot(one["time"], probability.sel(target=name), marker="." if one.sizes["window"] < 60 else None, **look)
    axes.set(xlabel="seconds", ylabel="probability")
    if probability.min() >= 0 and probability.max() <= 1:
        axes.set_ylim(-0.02, 1.02)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="upper left", bbox_to_anchor=(1, 1))
    heard = f"windows of {result.attrs['window']:g} s, a new one every {result.attrs['step']:g} s"
    axes.set_title(f"What {result.attrs['model']} hears through the recording ({heard})")
    return figure
