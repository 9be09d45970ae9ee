"""Activation statistics: mean, standard deviation and magnitude of each neuron over clips."""

import numpy as np
import torch
import xarray as xr

from .. import results
from ..corpora import as_clips
from ..models import require_model
from . import random_neurons
from .extraction import hidden_states


def activation_stats(model, clips, *, part="hidden_state", sample_rate=None) -> xr.Dataset:
    """Compute `mean`, `std` and mean `magnitude` |activation| of every neuron [layer, neuron] over all frames of clips.

    Also `written`, the root mean square of what a neuron adds to the residual stream: of `hidden_state`, the change
    from a layer's input to its output; of neurons inside a layer, their activation times the norm of their outgoing
    weights. NaN where that is not known. Modes "mean" and "noise" of an edit and the random neurons need the activation
    statistics of the training clips.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    sites, skipped, n_frames, sums = model.sites(part), {}, 0, 0
    for _, hidden, _ in hidden_states(model, clips, sites, skipped):
        hidden, n_frames = hidden.cpu().double(), n_frames + hidden.shape[1]
        change = torch.diff(hidden, dim=0, prepend=torch.zeros_like(hidden[:1]))
        sums = sums + torch.stack(
            [values.sum(1) for values in (hidden, hidden.square(), hidden.abs(), change.square())]
        )
    mean, square, magnitude, changed = (sums / n_frames).numpy()
    outgoing = random_neurons.outgoing(model, part, [site.layer for site in sites])
    written = np.full_like(mean, np.nan) if outgoing is None else np.sqrt(square) * outgoing
    if part == "hidden_state" and model.architecture.residual:
        written = np.sqrt(changed)
    data = {"mean": mean, "std": np.sqrt(np.maximum(square - mean**2, 0)), "magnitude": magnitude, "written": written}
    return xr.Dataset(
        {name: (("layer", "neuron"), values) for name, values in data.items()},
        results.axes(sites, mean),
        results.attributes(model, skipped, method="activation_stats", part=part, n_frames=n_frames),
    )


def check_activation_stats(activation_stats, model, part, needed_by=None) -> None:
    """Raise ValueError if `activation_stats` are of another model or part, or None where `needed_by` needs them."""
    if activation_stats is None:
        if needed_by:
            argument = f"activation_stats=activations.activation_stats(model, training clips, part={part!r})"
            raise ValueError(f"{needed_by} needs {argument}")
    elif (
        not isinstance(activation_stats, xr.Dataset)
        or not {"mean", "std"} <= set(activation_stats)
        or not {"part", "model"} <= set(activation_stats.attrs)
        or "neuron" not in activation_stats.dims
    ):
        raise ValueError(
            "activation_stats must be the Dataset returned by activations.activation_stats(model, training clips)"
        )
    elif activation_stats.attrs["part"] != part:
        raise ValueError(f"the activation statistics are of {activation_stats.attrs['part']} instead of {part}")
    elif (activation_stats.attrs["model"], activation_stats.sizes["neuron"]) != (
        model.name,
        model.architecture.width(part),
    ):
        raise ValueError(
            "the activation statistics are of another model, "
            f"{activation_stats.attrs['model']}, instead of {model.name}"
        )
