from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from . import style

_MEASURES = {"recall": "recall", "log_odds": "change of own class's log odds (nats)"}


def forgetting(effects):
    """What is forgotten and what is kept as more neurons are pruned, and the same for matched random neurons.

    Parameters
    ----------
    effects : Dataset
        Of `pruning.effects`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 4.3))
    doses, name = effects["dose"].values, effects.attrs["forgotten"]
    at, random = np.arange(len(doses)), effects.isel(who=slice(1, None))
    for ax, (measure, label) in zip(axes, _MEASURES.items()):
        for shift, group, color, marker in ((-0.04, "forgotten", "#D55E00", "o"), (0.04, "kept", "#0072B2", "s")):
            one, null = effects.sel(group=group, who="chosen"), random[measure].sel(group=group)
            text = f"{name} (to forget)" if group == "forgotten" else "the other emotions"
            ax.fill_between(at, null.min("who"), null.max("who"), color=color, alpha=0.2, lw=0)
            ax.plot(at, null.mean("who"), color=color, ls=":", lw=1.2)
            ax.plot(at + shift, one[measure], color=color, marker=marker, label=text)
            ax.vlines(at + shift, one[f"{measure}_low"], one[f"{measure}_high"], color=color, lw=1)
        ax.set_xticks(at, doses)
        ax.set(xlabel="neurons pruned", ylabel=label)
    axes[0].set(ylim=(-0.05, 1.05), title="Chosen neurons (bars: 95 % over speakers)")
    axes[1].set_title("Shaded, dotted: matched random neurons")
    axes[1].axhline(0, color="black", lw=0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
