import numpy as np

from . import style


def uninterpretable(result):
    """Plot the share of neurons that no kind of sentence describes, by layer, for each tau, beside random clips.

    `result` is as returned by `interpretability.uninterpretable`; one of `part`, `clusters` and `k` may have several
    values, each in its panel. Raise ValueError if more than one of them has.
    """
    choices = [name for name in ("part", "clusters", "k") if name in result["share"].dims]
    result = result[["share", "chance"]].squeeze([name for name in choices if result.sizes[name] == 1])
    varied = [name for name in choices if name in result.dims]
    if len(varied) > 1:
        raise ValueError(f"only one of {', '.join(varied)} may have several values: pick with .sel(…)")
    panel_of = varied[0] if varied else None
    facets = result[panel_of].values.tolist() if varied else [None]
    figure, panels = style.panels(1, len(facets), height=3.8, sharex=True, sharey=True, squeeze=False)
    for ax, facet in zip(panels[0], facets):
        facet_result = result.sel({panel_of: facet}) if varied else result
        for index, tau in enumerate(facet_result["tau"].values.tolist()):
            percentages = 100 * facet_result.sel(tau=tau).dropna("layer", subset=["share"])
            layers, options = percentages["layer"].values, {"color": style.COLORS[index % len(style.COLORS)]}
            null_distribution = percentages["chance"].transpose("draw", "layer")
            if len(layers):
                ax.fill_between(
                    layers, *np.quantile(null_distribution, [0.025, 0.975], axis=0), alpha=0.25, lw=0, **options
                )
                ax.plot(layers, null_distribution.mean("draw"), lw=1, ls=":", **options)
            ax.plot(layers, percentages["share"], "osD^vP"[index % 6], ls="-", ms=5, label=f"τ = {tau}", **options)
        ax.set(xlabel="layer", ylim=(0, 102), xticks=facet_result["layer"].values)
        ax.set_title(f"{panel_of} {facet}" if varied else "", parse_math=False)
    panels[0, 0].set_ylabel("neurons not interpretable (%)")
    band = ax.fill_between([], [], [], color="gray", alpha=0.25, label="random clips: mean, 95 % of draws")
    fixed = "".join(f"; {name} {result[name].item()}" for name in choices if name not in varied)
    figure.suptitle(f"Fewer than τ of a neuron's top clips share a kind of sentence{fixed}", fontsize=11)
    figure.legend(handles=[*ax.get_legend_handles_labels()[0][:-1], band], loc="outside lower center", ncols=4)
    return figure
