import numpy as np

from . import style


def description_check(held):
    """Plot the correlation of descriptions with activations on held-out clips, by layer, beside two controls.

    `held` is as returned by `dissection.predictivity`.
    """
    figure, ax = style.panels(height=3.8)
    groups = (
        ("the neuron's own", held["rho"], style.COLORS[0]),
        ("another neuron's", held["other"], style.COLORS[4]),
        ("from shuffled captions", held["shuffled"], style.RANDOM_COLOR),
    )
    layers = held["layer"].values
    options = {"widths": 0.22, "whis": (5, 95), "showfliers": False, "patch_artist": True}
    for index, (name, data, color) in enumerate(groups):
        values = [data.sel(layer=layer).values.ravel() for layer in layers]
        values = [v[np.isfinite(v)] for v in values]
        positions = np.arange(len(layers)) + 0.26 * (index - 1)
        ax.boxplot(
            values, positions=positions, medianprops={"color": "black"}, boxprops={"facecolor": color}, **options
        )
        ax.plot([], [], "s", color=color, ms=9, label=f"{name} \n(ρ defined: {np.isfinite(data.values).mean():.0%})")
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(range(len(layers)), layers)
    ax.set(xlabel="layer", ylabel="ρ with the activation", ylim=(-1.02, 1.02))
    ax.set_title("Descriptions on held-out clips (box: quartiles; whiskers: 5–95 % of neurons)")
    figure.legend(title="description", loc="outside right center")
    return figure
