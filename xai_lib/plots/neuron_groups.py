from .. import statistics
from ..corpora.filenames import EMOTIONS
from . import style


def neuron_groups(*tables, ylabel="mean activation"):
    """Plot one neuron by emotion, sex or intensity: one dot per speaker, a speaker's two dots joined, and the means.

    Each of the `tables` is as returned by `attribution.distribution` and has a panel, which names what its clips agree
    in. Means have a 95 % t interval over speakers from 8 up.
    """
    width = [0.6 + table.shape[1] for table in tables]
    figure, panels = style.panels(1, len(tables), sharey=True, squeeze=False, width_ratios=width)
    for axes, table in zip(panels[0], tables):
        names = [str(name) for name in table.columns]
        colors = style.colors(names) if set(names) & set(EMOTIONS) else dict.fromkeys(names, "#777777")
        joined = len(names) == 2 and len(table.dropna()) > 0
        if joined:
            axes.plot([0, 1], table.dropna().T, color=style.RANDOM_COLOR, lw=0.8, zorder=0)
        for index, (name, values) in enumerate(zip(names, (table[column].dropna() for column in table))):
            positions = index + style.apart(len(values), 0 if joined else 0.15)
            axes.plot(positions, values, "o", ms=4.5, color=colors[name], mec="black", mew=0.3, alpha=0.85)
            mean, low, high = statistics.interval(values)
            axes.errorbar(index + 0.3, mean, [[mean - low], [high - mean]], fmt="D", color="black", ms=4, capsize=2)
        tick_options = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(names) > 3 else {}
        axes.set_xticks(range(len(names)), names, parse_math=False, **tick_options)
        cell_note = f"\nclips agree in\n{table.attrs['cell']}" if "cell" in table.attrs else ""
        axes.set_xlabel(f"{table.columns.name}{cell_note}", parse_math=False, fontsize="small")
        axes.set_xlim(-0.5, len(names) - 0.3)
    n, info = max(map(len, tables)), tables[0].attrs
    title = f"Layer {info['layer']}, neuron {info['neuron']} of {info['part']}: each of {n} speakers, and their mean"
    panels[0, 0].set_ylabel(ylabel)
    panels[0, 0].set_title(title)
    return figure
