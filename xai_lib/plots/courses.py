from .. import results, statistics
from . import style


def courses(course, neurons, consistency=None):
    """Plot the mean time course of some neurons from the onset of the speech to its end, with the level in grey.

    `course` is as returned by `time_courses.course`. The table `neurons` has the columns `layer` and `neuron`; each row
    has a panel. Each speaker's mean is subtracted. Bands are intervals over speakers; with fewer than 8, each speaker
    is a line. Dashed: the mean in shuffled speech. With `consistency`, as returned by `time_courses.consistency`,
    titles give the mean correlation between two speakers for each kind of course.
    """
    rows, positions = -(-len(neurons) // 3), course["position"].values
    figure, panels = style.panels(rows, 3, height=0.7 + 2.2 * rows, squeeze=False)
    for axes, row in zip(panels.flat, neurons.itertuples()):
        indexers, level_axes = {"layer": row.layer, "neuron": row.neuron}, axes.twinx()
        level_axes.plot(positions, results.average(course["level"]), color=style.RANDOM_COLOR, lw=3)
        level_axes.set_ylim(-80, 0)
        level_axes.tick_params(labelsize=7, colors="#888888", labelright=axes in panels[:, 2])
        units = results.units(course["activation"].sel(indexers))
        units = units - units.mean("position")
        if "speaker" in units.dims and units.sizes["speaker"] >= statistics.MIN_SPEAKERS:
            interval = statistics.over_speakers(units)
            axes.fill_between(positions, interval["low"], interval["high"], color=style.COLORS[0], alpha=0.25, lw=0)
        else:
            axes.plot(positions, units.transpose("position", ...), color=style.COLORS[0], lw=0.6, alpha=0.4)
        shuffled = results.average(course["shuffled"].sel(indexers))
        axes.plot(positions, shuffled - shuffled.mean(), color=style.COLORS[0], ls="--", lw=1)
        axes.plot(positions, units.mean([dim for dim in units.dims if dim != "position"]), color=style.COLORS[0])
        axes.set_xlim(0, 1)
        axes.set_zorder(level_axes.get_zorder() + 1)
        axes.patch.set_visible(False)
        title = f"layer {row.layer}, neuron {row.neuron}"
        if consistency is not None:
            title += "\nr = " + ", ".join(f"{r:.2f}" for r in consistency["r"].sel(indexers).values)
        axes.set_title(title, fontsize=9)
    for axes in panels.flat[len(neurons) :]:
        axes.set_axis_off()
    figure.supxlabel("position from onset (0) to end (1) of the speech", fontsize=10)
    figure.supylabel("activation (centred)", fontsize=10)
    kinds = (
        "" if consistency is None else "; r: " + ", ".join(k.replace("_", " ") for k in consistency["course"].values)
    )
    figure.suptitle(f"Grey, right: level (dBFS){kinds}", x=0.01, ha="left", fontsize=10)
    return figure
