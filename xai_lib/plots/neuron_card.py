import numpy as np

from .. import statistics
from . import style


def neuron_card(card, *, marks=None, units="speakers"):
    """Plot one neuron: words of its description, best concept, activation on held-out clips, and zero ablation.

    `card` is a `NeuronCard`, as returned by `dissection.card`; missing parts are left out. `marks` are activations of
    other recordings by name, drawn as lines. Text is truncated and drawn literally: a "$" starts no formula. `units`
    is the figure's word for speakers.
    """
    sections = [(_draw_words, 1, card.z is not None), (_draw_concepts, 0.9, card.concept_match is not None)]
    sections += [(_draw_clips, 1.3, card.test is not None and bool(card.selectivity))]
    sections += [(_draw_zeroed, 0.8, card.zero_ablation is not None and "mean" in card.zero_ablation)]
    sections = [(draw, width) for draw, width, available in sections if available]
    rows, widths = (2, [1, 1]) if len(sections) > 3 else (1, [width for _, width in sections] or [1])
    figure, panels = style.panels(rows, len(widths), height=3.6 * rows + 0.4, squeeze=False, width_ratios=widths)
    for ax, (draw, _) in zip(panels.flat, sections):
        draw(ax, card, *{_draw_clips: [marks], _draw_zeroed: [units]}.get(draw, []))
    if not sections:
        panels[0, 0].set_axis_off()
    figure.suptitle(f"{_plain(card.title, 60)}: {_plain(card.description, 110)}", ha="left", x=0.01, size=10)
    return figure


def _draw_words(ax, card):
    """Draw the z of each word."""
    z = card.z.sortby(card.z)
    z = z[np.sort(np.argsort(-np.abs(z.values), kind="stable")[:20])]  # more would be unreadable
    ax.barh(range(z.size), z.values, color=np.where(z.values > 0, *style.COLORS[:2]))
    for side in (-1, 1):
        ax.axvline(side * card.chance_z, color="black", lw=1, ls=":")
    ax.set_yticks(range(z.size), [_plain(word) for word in z["word"].values], size=8)
    ax.set(
        xlabel="z, high against low exemplars\n(dotted: 95 % of shuffled captions)", title="Words of the description"
    )


def _draw_concepts(ax, card):
    """Draw the score of each concept; of a long list, the best ten."""
    match = card.concept_match
    score = match["score"]
    if score.size > 10:
        score = score[np.argsort(-score.values, kind="stable")[:10]]
    else:
        score = score.sel(concept=_in_order(card, score["concept"].values))
    colors = style.colors(score["concept"].values)
    # Points, not bars: mutual information can be below 0, and the worst concept would have the longest bar.
    ax.scatter(score, range(score.size), s=60, color=list(colors.values()), edgecolor="black", lw=0.3, zorder=3)
    ax.hlines(range(score.size), 0, 1, transform=ax.get_yaxis_transform(), color="#DDDDDD", lw=0.8)
    dotted = ""
    if np.isfinite(match["chance"]):
        ax.axvline(float(match["chance"]), color="black", lw=1, ls=":")
        dotted = "\n(dotted: best of shuffled)"
    ax.set_yticks(range(score.size), [_plain(name) for name in colors], size=8)
    ax.invert_yaxis()
    name = _plain(match["name"].item() or "none")
    ax.set(xlabel=f"fit ({name} fits best,\np = {float(match['p']):.3f}){dotted}", title="Concept")


def _draw_clips(ax, card, marks):
    """Draw the activation of each held-out clip by class, with the AUROC."""
    test, rng, rows = card.test, np.random.default_rng(0), []
    for by, selective in card.selectivity.items():
        names = _in_order(card, selective["concept"].values)
        palette = style.colors(names) if by == "label" else dict(zip(names, style.MORE_COLORS[::-1] * len(names)))
        for name, color in palette.items():
            values, class_result = test.values[test[by].values == name], selective.sel(concept=name)
            positions = len(rows) + rng.uniform(-0.22, 0.22, len(values))
            ax.plot(values, positions, "o", ms=4, color=color, mec="black", mew=0.3)
            text = f"{float(class_result['mean']):.2f}{' *' if class_result['q'] < 0.05 else ''}"
            ax.text(1.01, len(rows), text, transform=ax.get_yaxis_transform(), size=8, va="center")
            rows.append(_plain(name))
        ax.axhline(len(rows) - 0.5, color="#CCCCCC", lw=0.8)
    ax.set_yticks(range(len(rows)), rows, size=8)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    for line, (name, value) in zip(("-", "--", "-.", ":") * len(marks or ()), (marks or {}).items()):
        ax.axvline(value, color="black", lw=1, ls=line, label=_plain(name).lstrip("_"))
    if marks:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), fontsize=8, ncols=2)
    ax.set_xlabel("mean activation in a clip\n(right: AUROC; *: q < 0.05)")
    rho = card.rho
    rho_text = "" if rho is None else " empty description" if np.isnan(rho) else f" description ρ = {rho:+.2f}"
    ax.set_title(f"Held-out clips{rho_text and ':' + rho_text}")


def _draw_zeroed(ax, card, units):
    """Draw the change of each class under zero ablation of the neuron."""
    effect = card.zero_ablation
    colors = style.colors(effect["target"].values)
    error = [effect["mean"] - effect["low"], effect["high"] - effect["mean"]]
    ax.barh(range(len(colors)), effect["mean"], xerr=error, color=list(colors.values()), ecolor="black", capsize=2)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(colors)), [_plain(name) for name in colors], size=8)
    ax.invert_yaxis()
    scale = {"log_odds": "log odds (nats)"}.get(effect.attrs["scale"], effect.attrs["scale"])
    ax.locator_params(axis="x", nbins=5)
    ax.set(xlabel=f"change in the {scale}\nof each class, on its clips", title="Zero ablation")
    if "n" in effect and bool(((effect["n"] > 0) & ~np.isfinite(effect["low"])).any()):
        ax.set_title(f"Zero ablation (no interval: needs {statistics.MIN_SPEAKERS} {units})", fontsize=10)


def _in_order(card, names) -> list:
    """Return names in the order of the panel of classes, so that all panels agree; others follow in their own order."""
    effect = card.zero_ablation
    first = [] if effect is None else effect["target"].values.tolist()
    return sorted(names, key=lambda name: first.index(name) if name in first else len(first))


def _plain(text, max_length=24) -> str:
    """Return untrusted text as one line without formulas and of bounded length."""
    text = "".join(c if c.isprintable() else " " for c in str(text)[: max_length + 1])
    return (text[: max_length - 1] + "…" if len(text) > max_length else text).replace("$", r"\$")
