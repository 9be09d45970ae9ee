import numpy as np

from . import style


def adjectives(table, *, most=20):
    """How many neurons each adjective describes, beside descriptions from shuffled captions.

    `table` is of `concepts.distribution`; the `most` adjectives that describe most neurons are shown.
    """
    shown = table[:most]
    at = np.arange(len(shown))
    figure, ax = style.panels(height=1.2 + 0.24 * len(shown))
    ax.barh(at, shown["neurons"], 0.7, color=style.COLORS[0], label="its own captions")
    if "null" in shown:
        band = np.array([shown["null"] - shown["null_low"], shown["null_high"] - shown["null"]])
        look = {"fmt": "o", "ms": 4, "capsize": 3, "color": "black", "mfc": style.NULL_COLOR}
        ax.errorbar(shown["null"], at, xerr=band, label="shuffled captions: mean, 95 % of further draws", **look)
        ends = shown[["neurons", "null_high"]].max(axis=1)
        for place in np.flatnonzero(~(shown["q"] < 0.05)):
            ax.text(ends.iloc[place], place, "  as by chance", va="center")
    ax.set_yticks(at, shown.index, parse_math=False)
    ax.invert_yaxis()
    left = f" ({len(shown)} of {len(table)})" if len(shown) < len(table) else ""
    ax.set(xlabel="neurons", xlim=(0, None), title=f"Neurons by adjective{left}; a neuron may have several")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
