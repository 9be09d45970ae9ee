from . import style


def agreement_curves(curves, target):
    """Plot how far neuron rankings agree with that of a target, layer by layer, for this and for other targets.

    `curves` has a panel each, {title: Dataset returned by `statistics.over_speakers`, with dims `target` and `layer`}.
    The target is drawn bold with its interval, clipped to ± 1; all other targets are its baseline.
    """
    figure, panels = style.panels(1, len(curves), sharey=True, squeeze=False)
    names = [name for name in next(iter(curves.values()))["target"].values.tolist() if name != target]
    colors = style.colors([*names, target])
    for axes, (title, curve) in zip(panels[0], curves.items()):
        for name in names:
            axes.plot(curve["layer"], curve["mean"].sel(target=name), color=colors[name], lw=1, label=name)
        target_curve = curve.sel(target=target).clip(-1, 1)
        style.interval(
            axes, target_curve["layer"], target_curve, color=colors[target], marker="o", lw=3, capsize=3, label=target
        )
        axes.axhline(0, color="black", lw=0.6)
        axes.set(xlabel="layer", title=f"{title} scores", xticks=target_curve["layer"].values)
    n = int(curve["n"].sel(target=target).max())
    panels[0, 0].set_ylabel("rank correlation over neurons")
    figure.suptitle(f"Mean over {n} speakers" + (", 95 % interval" if n > 7 else ""), x=0.01, ha="left", fontsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", title="same clips,\ntarget")
    return figure
