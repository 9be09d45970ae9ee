import numpy as np

from . import style


def adjectives_by_layer(result):
    """Mean number of adjectives per neuron by layer, a line through the layers, and shuffled captions.

    `result` is of `concepts.by_layer`. A colour for each part; shaded, the 95 % band of the line with layers as units;
    grey, the draws from shuffled captions.
    """
    figure, ax = style.panels(height=4)
    parts = result["part"].values.tolist() if "part" in result.dims else [None]
    for place, part in enumerate(parts):
        one = result if part is None else result.sel(part=part)
        color = style.COLORS[place % len(style.COLORS)]
        mean = one["mean"].dropna("layer")
        x = mean["layer"].values
        if "null" in one:
            null = one["null"].sel(layer=x).transpose("draw", "layer")
            ends = null.min("draw"), null.max("draw")
            ax.fill_between(x, *ends, color=style.NULL_COLOR, alpha=0.7, lw=0)
            ax.plot(x, null.mean("draw"), color="#777777", lw=1, ls=":")
        slope, low, high, p = (float(one[name]) for name in ("slope", "low", "high", "p"))
        text = f"{slope:+.2f} per layer ({low:+.2f} to {high:+.2f}), p = {p:.2g}".replace("-", "−")
        name = text if part is None else f"{part}: {text}"
        ax.plot(x, mean, "osD^vP"[place % 6], color=color, label=name if np.isfinite(slope) else part)
        away = x - x.mean()
        line, half = float(one["intercept"]) + slope * x, (high - slope) * np.sqrt(np.mean(away**2) + away**2)
        ax.plot(x, line, color=color, lw=1.2)
        ax.fill_between(x, line - half, line + half, color=color, alpha=0.15, lw=0)
    if "null" in result:
        name = f"shuffled captions: {result.sizes['draw']} draws, all"
        ax.fill_between([], [], [], color=style.NULL_COLOR, label=name)
    ax.set(xlabel="layer", ylabel="adjectives per neuron (mean)", ylim=(0, None), xticks=np.unique(result["layer"]))
    ax.set_title("Adjectives by layer: line and 95 % band, layers as units")
    figure.legend(loc="outside lower center", ncols=1 if len(parts) > 1 else 2)
    return figure
