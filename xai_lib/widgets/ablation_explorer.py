import ipywidgets

from .. import plots
from .panel import Panel

READOUTS = {
    "log-odds of the target": ("delta", "change of the target's log-odds (nats)"),
    "divergence from clean": ("kl", "KL divergence from clean (nats)"),
    "decision changed": ("changed", "share of clips with another label"),
}


class AblationExplorer(Panel):
    """Which layer, what is done to its neurons, in which frames, and what is measured: all looked up.

    `sweeps` is of `ablation.sweep`, or several over the same layers, one for each policy of frames. It starts in the
    middle unless told a `layer`.
    """

    def __init__(self, sweeps, *, layer=None):
        sweeps = sweeps if isinstance(sweeps, (list, tuple)) else [sweeps]
        self.sweeps = {sweep.attrs["frames"]: sweep for sweep in sweeps}
        first = sweeps[0]
        layers = first["layer"].values.tolist()
        start = layers[len(layers) // 2] if layer is None else layer
        controls = {
            "layer": ipywidgets.SelectionSlider(options=layers, value=start),
            "mode": ipywidgets.Dropdown(options=first["mode"].values.tolist()),
            "frames": ipywidgets.Dropdown(options=list(self.sweeps)),
            "readout": ipywidgets.Dropdown(options=list(READOUTS), description="read-out"),
        }
        super().__init__("Ablation, layer by layer", controls)

    def draw(self, layer, mode, frames, readout):
        sweep = self.sweeps[frames]
        if mode not in sweep["mode"].values:
            have = ", ".join(sweep["mode"].values)
            raise KeyError(f"{mode} was not run with frames={frames!r}; there is {have}")
        variable, xlabel = READOUTS[readout]
        return plots.layer_effect(sweep, layer, mode=mode, variable=variable, xlabel=xlabel)
