"""Exhaustive ablation: the loss of the target when each neuron of each layer is edited alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from .. import edits, execution, results, targets
from ..activations import check_activation_stats
from ..activations.donors import check as check_donors
from ..activations.donors import usable as usable_with_donors
from ..corpora import as_clips
from ..models import require_model

if TYPE_CHECKING:
    from ..models import Model


def exhaustive_ablation(
    model: Model,
    clips,
    *,
    target: str | int | Sequence[str | int],
    mode: str = "zero",
    layers: str | int | Sequence[int] = "all",
    part: str = "hidden_state",
    frames: str | int | Sequence[int] = "all",
    scale: str = "log_odds",
    activation_stats: xr.Dataset | None = None,
    donors: pd.DataFrame | None = None,
    seed: int = 0,
    batch: int | None = None,
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Edit each neuron of each layer alone, and measure how much the target falls.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    target : str, int, or pair
        A class, "predicted" (that of each clip, reported in the coordinate `target`), or a contrast of two.
    mode, frames
        As in `edits.edit`; frames of "speech" are those of each clip. The mode "noise" draws the same for each neuron.
    layers : "all", int or sequence of int
    part : {"hidden_state", "attention", "ffn_hidden", "ffn_out", "heads"}
        As in `attribution.grad_x_activation`.
    scale : {"log_odds", "logit", "probability"}
        The value that is explained.
    activation_stats : Dataset, optional
        Activation statistics as returned by `activations.activation_stats` on training clips, for the same part: needed
        for the modes "mean" and "noise".
    donors : DataFrame, optional
        A donor for each clip, by index, as returned by `donors.random_donors` or `donors.minimal_pairs`: for "resample"
        and "patch".
    batch : int, optional
        Edited copies that share a forward pass.

    Returns
    -------
    Dataset with `signed` and `absolute` [clip, layer, neuron]
        The clean clip's value minus that of the edited one, in units of the scale, and its magnitude. Coordinates on
        `clip`: `target`, `value` (of the clean clip), and what the corpus knows. Clips that could not be used are in
        attrs["skipped"].

    Raises
    ------
    UntrainedHead, ValueError
        A random head; an unknown target, layer, part, mode, frames or scale; `activation_stats` or `donors` that are
        missing, or do not fit; no usable clip.

    Notes
    -----
    All copies of a clip run in the batches of `execution.cascade`, from the edited layer upwards. Each equals one
    hooked forward pass.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    targets.check(model, target, scale)
    sites = model.sites(part, layers)
    check_activation_stats(activation_stats, model, part, mode if mode in ("mean", "noise") else None)
    check_donors(donors, clips, [mode])

    site_options = edits.statistics_arguments(sites, activation_stats)
    skipped = {}
    losses = {}
    names = []
    values = []
    for index, waveform, speech, donor_values, _ in usable_with_donors(model, clips, frames, skipped, donors, sites):
        noise_key = targets.key(seed, index, targets.SEED_NOISE)
        options = {"mode": mode, "frames": frames, "speech": speech, "seed": noise_key}
        plan = []
        for site in sites:
            options_at_site = {**options, **site_options[site], "values": donor_values.get(site)}
            for neuron in range(model.n_neurons(site)):
                plan.append((site, edits.edit(neuron, **options_at_site)))
        losses[index], name, value = _losses(model, waveform, plan, target, scale, batch)
        names.append(name)
        values.append(value)

    signed = np.stack(list(losses.values())).reshape(len(losses), len(sites), -1)
    dims = ("clip", "layer", "neuron")
    frames_name = frames if isinstance(frames, str) else str(np.asarray(frames).tolist())
    attrs = {"mode": mode, "part": part, "frames": frames_name, "scale": scale, "seed": seed}
    return xr.Dataset(
        {"signed": (dims, signed), "absolute": (dims, np.abs(signed))},
        {**results.coordinates(clips, losses, target=names, value=values), **results.axes(sites, signed)},
        results.attributes(model, skipped, method="exhaustive_ablation", **attrs),
    )


def _losses(model, waveform, plan, target, scale, batch):
    """Return how much the target of one clip falls by each edit, the target's name, and its value in the clean clip."""
    logits = execution.cascade(model, waveform, plan, batch=batch).double()  # the first row is the clean clip
    classes = targets.resolve(model, target, logits[:1])
    values = targets.value(model, logits, classes, scale)
    losses = values[0] - values[1:]
    return losses.float().cpu().numpy(), targets.name(model, classes), values[0].item()
