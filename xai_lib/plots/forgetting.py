from __future__ import annotations

import matplotlib.pyplot as plt

from . import style

_MEASURES = {"recall": "recall", "logit": "change of the own class's logit"}


def forgetting(effects):
    """What is forgotten and what is kept as more neurons are pruned, and the same for matched random neurons.

    Parameters
    ----------
    effects : Dataset
        Of `pruning.effects`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 4.0))
    doses, name = effects["dose"].values, effects.attrs["forgotten"]
    random = effects.isel(who=slice(1, None))
    for ax, (measure, label) in zip(axes, _MEASURES.items()):
        for group, color, marker in (("forgotten", "#D55E00", "o"), ("kept", "#0072B2", "s")):
            one, null = effects.sel(group=group, who="chosen"), random[measure].sel(group=group)
            text = f"{name} (to forget)" if group == "forgotten" else "the other emotions"
            ax.fill_between(range(len(doses)), null.min("who"), null.max("who"), color=color, alpha=0.18, lw=0)
            ax.plot(null.mean("who"), color=color, ls=":", lw=1.2)
            ax.plot(one[measure], color=color, marker=marker, label=text)
            ax.vlines(range(len(doses)), one[f"{measure}_low"], one[f"{measure}_high"], color=color, lw=1)
        ax.set_xticks(range(len(doses)), doses)
        ax.set(xlabel="neurons pruned", ylabel=label)
    axes[0].set(ylim=(-0.02, 1.02), title="Pruning chosen neurons (lines: 95 % interval over speakers)")
    axes[1].set_title("Shaded: matched random neurons")
    axes[1].axhline(0, color="black", lw=0.8)
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure
