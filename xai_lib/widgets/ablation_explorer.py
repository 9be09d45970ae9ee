from __future__ import annotations

from collections.abc import Sequence

import ipywidgets
import xarray as xr
from matplotlib.figure import Figure

from .. import plots
from .panel import Panel

READOUTS = {
    "log-odds of the target": ("target_change", "change of the target's log-odds (nats)"),
    "divergence from clean": ("kl", "KL divergence from clean (nats)"),
    "decision changed": ("changed", "share of clips with another label"),
}


class AblationExplorer(Panel):
    """Explorer of ablation results: layer, mode, frames and readout, all looked up in the `sweeps`.

    `sweeps` is a result of `ablation.sweep`, or several over the same layers, one for each frame policy. `layer` is
    shown first (default: the middle one).
    """

    def __init__(self, sweeps: xr.Dataset | Sequence[xr.Dataset], *, layer: int | None = None):
        if isinstance(sweeps, xr.Dataset):
            sweeps = [sweeps]
        self.sweeps = {sweep.attrs["frames"]: sweep for sweep in sweeps}
        first = sweeps[0]
        layers = first["layer"].values.tolist()
        if layer is None:
            layer = layers[len(layers) // 2]
        controls = {
            "layer": ipywidgets.SelectionSlider(options=layers, value=layer),
            "mode": ipywidgets.Dropdown(options=first["mode"].values.tolist()),
            "frames": ipywidgets.Dropdown(options=list(self.sweeps)),
            "readout": ipywidgets.Dropdown(options=list(READOUTS), description="readout"),
        }
        super().__init__("Ablation, layer by layer", controls)

    def draw(self, layer: int, mode: str, frames: str, readout: str) -> Figure:
        """Return the figure of one layer; raise KeyError if the mode was not run with these frames."""
        sweep = self.sweeps[frames]
        if mode not in sweep["mode"].values:
            available = ", ".join(sweep["mode"].values)
            raise KeyError(f"mode {mode!r} was not run with frames={frames!r}: choose from {available}")
        variable, xlabel = READOUTS[readout]
        return plots.layer_effect(sweep, layer, mode=mode, variable=variable, xlabel=xlabel)
