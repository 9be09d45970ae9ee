from .. import statistics
from ..corpora.filenames import EMOTIONS
from . import style


def neuron_groups(*tables, ylabel="mean activation"):
    """One neuron by emotion, sex or intensity: a dot for each speaker, the two of one joined, and the means.

    Each of the `tables` is of `contrasts.distribution`, and gets a panel, with what its clips agree in. Means have their
    95 % t interval over speakers from 8 up.
    """
    width = [0.6 + table.shape[1] for table in tables]
    figure, panels = style.panels(1, len(tables), sharey=True, squeeze=False, width_ratios=width)
    for axes, table in zip(panels[0], tables):
        names = [str(name) for name in table.columns]
        colors = style.colors(names) if set(names) & set(EMOTIONS) else dict.fromkeys(names, "#777777")
        joined = len(names) == 2 and len(table.dropna()) > 0
        if joined:
            axes.plot([0, 1], table.dropna().T, color=style.NULL_COLOR, lw=0.8, zorder=0)
        for place, (name, values) in enumerate(zip(names, (table[column].dropna() for column in table))):
            at = place + style.apart(len(values), 0 if joined else 0.15)
            axes.plot(at, values, "o", ms=4.5, color=colors[name], mec="black", mew=0.3, alpha=0.85)
            mean, low, high = statistics.interval(values)
            axes.errorbar(place + 0.3, mean, [[mean - low], [high - mean]], fmt="D", color="black", ms=4, capsize=2)
        tilt = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(names) > 3 else {}
        axes.set_xticks(range(len(names)), names, parse_math=False, **tilt)
        agree = f"\nclips agree in\n{table.attrs['cell']}" if "cell" in table.attrs else ""
        axes.set_xlabel(f"{table.columns.name}{agree}", parse_math=False, fontsize="small")
        axes.set_xlim(-0.5, len(names) - 0.3)
    n, about = max(map(len, tables)), tables[0].attrs
    title = f"Layer {about['layer']}, neuron {about['neuron']} of {about['part']}: each of {n} speakers, and their mean"
    panels[0, 0].set_ylabel(ylabel)
    panels[0, 0].set_title(title)
    return figure
