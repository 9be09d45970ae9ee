from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style


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
