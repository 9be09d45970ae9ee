import numpy as np

from . import style


def uninterpretable(result):
    """Share of neurons that no kind of sentence describes, by layer, for each tau, and random clips in their place.

    `result` is of `interpretability.uninterpretable`; of `part`, `clusters` and `k` one may have several values, which
    get a panel each.
    """
    choices = [name for name in ("part", "clusters", "k") if name in result["share"].dims]
    result = result[["share", "null"]].squeeze([name for name in choices if result.sizes[name] == 1])
    several = [name for name in choices if name in result.dims]
    if len(several) > 1:
        raise ValueError(f"one of {', '.join(several)} may have several values: pick with .sel(…)")
    panel_of = several[0] if several else None
    facets = result[panel_of].values.tolist() if several else [None]
    figure, panels = style.panels(1, len(facets), height=3.8, sharex=True, sharey=True, squeeze=False)
    for ax, facet in zip(panels[0], facets):
        here = result.sel({panel_of: facet}) if several else result
        for place, tau in enumerate(here["tau"].values.tolist()):
            one = 100 * here.sel(tau=tau).dropna("layer", subset=["share"])
            x, look = one["layer"].values, {"color": style.COLORS[place % len(style.COLORS)]}
            null = one["null"].transpose("draw", "layer")
            if len(x):
                ax.fill_between(x, *np.quantile(null, [0.025, 0.975], axis=0), alpha=0.25, lw=0, **look)
                ax.plot(x, null.mean("draw"), lw=1, ls=":", **look)
            ax.plot(x, one["share"], "osD^vP"[place % 6], ls="-", ms=5, label=f"τ = {tau}", **look)
        ax.set(xlabel="layer", ylim=(0, 102), xticks=here["layer"].values)
        ax.set_title(f"{panel_of} {facet}" if several else "", parse_math=False)
    panels[0, 0].set_ylabel("neurons not interpretable (%)")
    band = ax.fill_between([], [], [], color="gray", alpha=0.25, label="random clips: mean, 95 % of draws")
    fixed = "".join(f"; {name} {result[name].item()}" for name in choices if name not in several)
    figure.suptitle(f"Fewer than τ of a neuron's top clips share a kind of sentence{fixed}", fontsize=11)
    figure.legend(handles=[*ax.get_legend_handles_labels()[0][:-1], band], loc="outside lower center", ncols=4)
    return figure
