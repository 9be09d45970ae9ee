"""Exhaustive ablation: the loss of the target when each neuron of each layer is edited alone."""

import numpy as np
import xarray as xr

from .. import edits, execution, results, targets
from ..activations import check_activation_stats
from ..activations import donors as donors_
from ..corpora import as_clips


def exhaustive_ablation(
    model,
    clips,
    *,
    target,
    mode="zero",
    layers="all",
    part="hidden_state",
    frames="all",
    scale="log_odds",
    activation_stats=None,
    donors=None,
    seed=0,
    batch=None,
    sample_rate=None,
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
    part : {"hidden_state", "attention", "ffn_hidden", "ffn_out"}
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
    clips = as_clips(clips, sample_rate)
    targets.check(model, target, scale)
    sites = model.sites(part, layers)
    check_activation_stats(activation_stats, model, part, mode if mode in ("mean", "noise") else None)
    donors_.check(donors, clips, [mode])
    site_options, skipped, rows, clip_values = edits.statistics_arguments(sites, activation_stats), {}, {}, []
    for index, waveform, speech, donor_values, _ in donors_.usable(model, clips, frames, skipped, donors, sites):
        key = targets.key(seed, index, targets.SEED_NOISE)
        options = {"mode": mode, "frames": frames, "speech": speech, "seed": key}
        plan = [
            (site, edits.edit(neuron, **options, **site_options[site], values=donor_values.get(site)))
            for site in sites
            for neuron in range(model.n_neurons(site))
        ]
        rows[index], *name_and_value = _losses(model, waveform, plan, target, scale, batch)
        clip_values.append(name_and_value)
    names, values = zip(*clip_values)
    signed = np.stack(list(rows.values())).reshape(len(rows), len(sites), -1)
    dims = ("clip", "layer", "neuron")
    frames = frames if isinstance(frames, str) else str(np.asarray(frames).tolist())
    attrs = {"mode": mode, "part": part, "frames": frames, "scale": scale, "seed": seed}
    return xr.Dataset(
        {"signed": (dims, signed), "absolute": (dims, np.abs(signed))},
        {**results.coordinates(clips, rows, target=list(names), value=list(values)), **results.axes(sites, signed)},
        results.attributes(model, skipped, method="exhaustive_ablation", **attrs),
    )


def _losses(model, waveform, plan, target, scale, batch):
    """Return how much the target of one clip falls by each edit, the target's name, and its value in the clean clip."""
    logits = execution.cascade(model, waveform, plan, batch=batch).double()
    classes = targets.resolve(model, target, logits[:1])
    value = targets.value(model, logits, classes, scale)
    return (value[0] - value[1:]).float().cpu().numpy(), targets.name(model, classes), value[0].item()
