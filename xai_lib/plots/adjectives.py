import numpy as np

from . import style


def adjectives(table, *, most=20):
    """Plot the number of neurons that each adjective describes, beside descriptions from shuffled captions.

    `table` is as returned by `adjectives.distribution`; the `most` adjectives that describe most neurons are shown.
    """
    top = table[:most]
    rows = np.arange(len(top))
    figure, ax = style.panels(height=1.2 + 0.24 * len(top))
    ax.barh(rows, top["neurons"], 0.7, color=style.COLORS[0], label="original captions")
    if "null" in top:
        error = np.array([top["null"] - top["null_low"], top["null_high"] - top["null"]])
        options = {"fmt": "o", "ms": 4, "capsize": 3, "color": "black", "mfc": style.NULL_COLOR}
        ax.errorbar(top["null"], rows, xerr=error, label="shuffled captions: mean, 95 % of further draws", **options)
        ends = top[["neurons", "null_high"]].max(axis=1)
        for row in np.flatnonzero(~(top["q"] < 0.05)):
            ax.text(ends.iloc[row], row, "  n.s. (q ≥ 0.05)", va="center")
    ax.set_yticks(rows, top.index, parse_math=False)
    ax.invert_yaxis()
    count_note = f" ({len(top)} of {len(table)})" if len(top) < len(table) else ""
    ax.set(xlabel="neurons", xlim=(0, None), title=f"Neurons by adjective{count_note}; a neuron may have several")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
