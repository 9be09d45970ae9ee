import numpy as np

from .. import statistics
from . import style


def neuron_card(card, *, marks=None, units="speakers"):
    """One neuron: the words of its description, the concept that fits, what it does on held-out clips and for the model.

    `card` is of `dissection.card`; what it lacks is left out. `marks` are activations of other recordings by name, drawn
    as lines. Text is cut and drawn as it is: a "$" begins no formula. `units` is what it calls the speakers.
    """
    drawn = [(_words, 1, card["z"] is not None), (_concepts, 0.9, card["named"] is not None)]
    drawn += [(_clips, 1.3, card["test"] is not None and bool(card["selective"]))]
    drawn += [(_zeroed, 0.8, card["zeroed"] is not None and "mean" in card["zeroed"])]
    drawn = [(draw, width) for draw, width, there in drawn if there]
    rows, widths = (2, [1, 1]) if len(drawn) > 3 else (1, [width for _, width in drawn] or [1])
    figure, panels = style.panels(rows, len(widths), height=3.6 * rows + 0.4, squeeze=False, width_ratios=widths)
    for ax, (draw, _) in zip(panels.flat, drawn):
        draw(ax, card, *{_clips: [marks], _zeroed: [units]}.get(draw, []))
    if not drawn:
        panels[0, 0].set_axis_off()
    text = next((card[name] for name in ("summary", "sentence") if isinstance(card[name], str)), "no description")
    place = f"Layer {card['layer']}, {card['part'] + ', ' if card['part'] else ''}neuron {card['neuron']}"
    figure.suptitle(f"{_plain(place, 60)}: {_plain(text, 110)}", ha="left", x=0.01, size=10)
    return figure


def _words(ax, card):
    """z of each word."""
    z = card["z"].sortby(card["z"])
    z = z[np.sort(np.argsort(-np.abs(z.values), kind="stable")[:20])]  # more could not be read
    ax.barh(range(z.size), z.values, color=np.where(z.values > 0, *style.COLORS[:2]))
    for side in (-1, 1):
        ax.axvline(side * card["null_z"], color="black", lw=1, ls=":")
    ax.set_yticks(range(z.size), [_plain(word) for word in z["word"].values], size=8)
    ax.set(xlabel="z, high against low exemplars\n(dotted: 95 % of shuffled captions)", title="Its words")


def _concepts(ax, card):
    """Score of each concept; of a long list, the best ten."""
    named = card["named"]
    score = named["score"]
    if score.size > 10:
        score = score[np.argsort(-score.values, kind="stable")[:10]]
    else:
        score = score.sel(concept=_in_order(card, score["concept"].values))
    colors = style.colors(score["concept"].values)
    # No bars: mutual information is below 0, and the worst would have the longest.
    ax.scatter(score, range(score.size), s=60, color=list(colors.values()), edgecolor="black", lw=0.3, zorder=3)
    ax.hlines(range(score.size), 0, 1, transform=ax.get_yaxis_transform(), color="#DDDDDD", lw=0.8)
    dotted = ""
    if np.isfinite(named["null"]):
        ax.axvline(float(named["null"]), color="black", lw=1, ls=":")
        dotted = "\n(dotted: best when shuffled)"
    ax.set_yticks(range(score.size), [_plain(name) for name in colors], size=8)
    ax.invert_yaxis()
    name = _plain(named["name"].item() or "none")
    ax.set(xlabel=f"fit ({name} fits best,\np = {float(named['p']):.3f}){dotted}", title="Its concept")


def _clips(ax, card, marks):
    """Activation of each held-out clip by what it is, with the AUROC."""
    test, rng, rows = card["test"], np.random.default_rng(0), []
    for by, selective in card["selective"].items():
        names = _in_order(card, selective["concept"].values)
        own = style.colors(names) if by == "label" else dict(zip(names, style.MORE_COLORS[::-1] * len(names)))
        for name, color in own.items():
            values, one = test.values[test[by].values == name], selective.sel(concept=name)
            place = len(rows) + rng.uniform(-0.22, 0.22, len(values))
            ax.plot(values, place, "o", ms=4, color=color, mec="black", mew=0.3)
            text = f"{float(one['mean']):.2f}{' *' if one['q'] < 0.05 else ''}"
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
    rho = card["rho"]
    foretold = "" if rho is None else " description says nothing" if np.isnan(rho) else f" description ρ = {rho:+.2f}"
    ax.set_title(f"Held-out clips{foretold and ':' + foretold}")


def _zeroed(ax, card, units):
    """What each class loses when the neuron is held at zero."""
    found = card["zeroed"]
    colors = style.colors(found["target"].values)
    error = [found["mean"] - found["low"], found["high"] - found["mean"]]
    ax.barh(range(len(colors)), found["mean"], xerr=error, color=list(colors.values()), ecolor="black", capsize=2)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(colors)), [_plain(name) for name in colors], size=8)
    ax.invert_yaxis()
    scale = {"log_odds": "log odds (nats)"}.get(found.attrs["scale"], found.attrs["scale"])
    ax.locator_params(axis="x", nbins=5)
    ax.set(xlabel=f"change in the {scale}\nof a class in its own clips", title="Held at zero")
    if "n" in found and bool(((found["n"] > 0) & ~np.isfinite(found["low"])).any()):
        ax.set_title(f"Held at zero (no interval: it takes {statistics.FEWEST} {units})", fontsize=10)


def _in_order(card, names) -> list:
    """Names as the panel of classes has them, so that all panels read alike; others after them, as they come."""
    effect = card["zeroed"]
    first = [] if effect is None else effect["target"].values.tolist()
    return sorted(names, key=lambda name: first.index(name) if name in first else len(first))


def _plain(text, most=24) -> str:
    """Text that may say anything, as one line without formulas and of bounded length."""
    text = "".join(c if c.isprintable() else " " for c in str(text)[: most + 1])
    return (text[: most - 1] + "…" if len(text) > most else text).replace("$", r"\$")
