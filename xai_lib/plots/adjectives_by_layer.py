import numpy as np

from . import style


def adjectives_by_layer(result):
    """Plot the mean number of adjectives per neuron by layer, a line through the layers, and shuffled captions.

    `result` is as returned by `open_concepts.by_layer`. Each part has its colour; shaded: the 95 % band of the line
    with layers as units; grey: the range of the draws from shuffled captions.
    """
    figure, ax = style.panels(height=4)
    parts = result["part"].values.tolist() if "part" in result.dims else [None]
    for index, part in enumerate(parts):
        part_result = result if part is None else result.sel(part=part)
        color = style.COLORS[index % len(style.COLORS)]
        mean = part_result["mean"].dropna("layer")
        layers = mean["layer"].values
        if "chance" in part_result:
            null_distribution = part_result["chance"].sel(layer=layers).transpose("draw", "layer")
            ends = null_distribution.min("draw"), null_distribution.max("draw")
            ax.fill_between(layers, *ends, color=style.RANDOM_COLOR, alpha=0.7, lw=0)
            ax.plot(layers, null_distribution.mean("draw"), color="#777777", lw=1, ls=":")
        slope, low, high, p = (float(part_result[name]) for name in ("slope", "low", "high", "p"))
        slope_text = f"{slope:+.2f} per layer ({low:+.2f} to {high:+.2f}), p = {p:.2g}".replace("-", "−")
        name = slope_text if part is None else f"{part}: {slope_text}"
        ax.plot(layers, mean, "osD^vP"[index % 6], color=color, label=name if np.isfinite(slope) else part)
        centred = layers - layers.mean()
        line = float(part_result["intercept"]) + slope * layers
        half_width = (high - slope) * np.sqrt(np.mean(centred**2) + centred**2)
        ax.plot(layers, line, color=color, lw=1.2)
        ax.fill_between(layers, line - half_width, line + half_width, color=color, alpha=0.15, lw=0)
    if "chance" in result:
        name = f"shuffled captions: {result.sizes['draw']} draws, all"
        ax.fill_between([], [], [], color=style.RANDOM_COLOR, label=name)
    ax.set(xlabel="layer", ylabel="adjectives per neuron (mean)", ylim=(0, None), xticks=np.unique(result["layer"]))
    ax.set_title("Adjectives by layer: line and 95 % band, layers as units")
    figure.legend(loc="outside lower center", ncols=1 if len(parts) > 1 else 2)
    return figure
