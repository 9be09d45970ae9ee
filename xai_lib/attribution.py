"""Which neurons drive the model towards a class, and what part of the input drives each neuron.

All layers and neurons come from one pass: one backward for the gradients, one forward per batch of silenced
segments for the responses. `gradient_shap`, attribution to the waveform, has a file of its own.
"""

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.stats import rankdata

from . import execution, hooks, targets
from .activations import usable
from .gradient_shap import frame_deletion, gradient_shap, windows

__all__ = [
    "agreement",
    "frame_deletion",
    "grad_x_activation",
    "gradient",
    "gradient_shap",
    "mean_score",
    "segment_response",
    "top_neurons",
]


def grad_x_activation(model, clips, *, target, layers="all", part="block", frames="all", scale="logit") -> xr.Dataset:
    """Gradient times activation of every neuron of every layer: one forward and one backward per clip.

    Parameters
    ----------
    target : str, int, or pair
        A class, "predicted" (each clip's own, reported in the coordinate `target`), or a contrast of two.
    layers : "all", int or sequence of int
    part : {"block", "attention", "ffn_hidden", "ffn_out"}
    frames : {"all", "speech"}
        Which frames are summed; of speech by `audio.speech_mask`.
    scale : {"logit", "log_odds", "probability"}
        What is explained.

    Returns
    -------
    Dataset with `signed` and `absolute` [clip, layer, neuron]
        Sums over frames of gradient × activation and of its absolute value, in units of the scale. Coordinates on
        `clip`: `target`, `value` (of the scale), and what the corpus knows. Clips that could not be used are in
        attrs["skipped"].

    Raises
    ------
    UntrainedHead, ValueError
        A random head; an unknown target, layer, part, frames or scale, or not one usable clip.

    References
    ----------
    Shrikumar et al. (2016), Not just a black box; captum.attr.LayerGradientXActivation, which it equals when that is
    summed over frames.
    """
    return _layerwise(model, clips, "grad_x_activation", target, layers, part, frames, scale)


def gradient(model, clips, *, target, layers="all", part="block", frames="all", scale="logit") -> xr.Dataset:
    """Gradient of the target by every neuron of every layer, summed over frames; as `grad_x_activation`.

    `signed` says how the target moves if the neuron rises by 1 at all those frames.
    """
    return _layerwise(model, clips, "gradient", target, layers, part, frames, scale)


def _layerwise(model, clips, method, target, layers, part, frames, scale):
    """Sums over frames, [clip, layer, neuron], from one backward per clip."""
    targets.check(model, target, scale)
    sites = model.sites(part, layers)
    # No gradient is needed below the lowest site: cut the graph there (the clone: torch's counter of FLOPs fails
    # where the input of a module is a leaf).
    start = {sites[0]: lambda hidden: hidden.detach().requires_grad_().clone()}
    skipped, rows, names, values = {}, {}, [], []
    for index, waveform, keep in usable(model, clips, frames, skipped):
        with torch.enable_grad(), hooks.edit(model, start), hooks.capture(model, sites) as seen:
            logits = model.logits(model.tensor(waveform))
            classes = targets.resolve(model, target, logits)
            value = targets.value(logits, classes, scale)[0]
            found = torch.autograd.grad(value, [seen[site] for site in sites])
        if method == "grad_x_activation":
            found = [slope * seen[site].detach() for slope, site in zip(found, sites)]
        found = torch.stack([by_frame[0, keep] for by_frame in found])  # [layer, frame, neuron]
        rows[index] = torch.stack([found.sum(dim=1), found.abs().sum(dim=1)]).cpu().numpy()
        names.append(targets.name(model, classes))
        values.append(value.item())
    stacked, dims = np.stack(list(rows.values())), ("clip", "layer", "neuron")
    return xr.Dataset(
        {"signed": (dims, stacked[:, 0]), "absolute": (dims, stacked[:, 1])},
        {**targets.coordinates(clips, rows, target=names, value=values), **targets.axes(sites, stacked)},
        targets.attributes(model, skipped, method=method, part=part, frames=frames, scale=scale),
    )


def mean_score(scores, *, by="absolute") -> xr.DataArray:
    """Mean over speakers of each one's mean score [layer, neuron]; over clips where speakers are not known."""
    if by not in ("absolute", "signed"):
        raise ValueError(f'unknown by={by!r}: "absolute" or "signed"')
    return targets.average(scores[by]).transpose("layer", "neuron")


def top_neurons(scores, k, *, by="absolute", layer=None) -> pd.DataFrame:
    """The `k` neurons with the greatest mean score, clips averaged within speakers first; of one `layer`, if told.

    `by` is "absolute", or "signed": the strongest push towards the target. To report effects later, choose on training
    clips only.

    Returns
    -------
    DataFrame, best first: `layer`, `part`, `neuron`, `score`, `signed`.
    """
    if layer is not None and layer not in scores["layer"]:
        raise ValueError(f"layer {layer} is not in these scores: they have {scores['layer'].values.tolist()}")
    scores = scores if layer is None else scores.sel(layer=[layer])
    both = xr.Dataset({"score": mean_score(scores, by=by), "signed": mean_score(scores, by="signed")})
    table = both.to_dataframe().reset_index().sort_values("score", ascending=False, kind="stable").head(k)
    table.insert(1, "part", scores.attrs["part"])
    return table.reset_index(drop=True)


def agreement(scores, reference, *, by="absolute") -> xr.DataArray:
    """How far each clip's ranking of the neurons follows the mean ranking of a reference: [clip, layer].

    It is Spearman's rank correlation over neurons; for intervals, `statistics.over_speakers`. That a ranking holds for
    other speakers does not make it one of its target: neurons with large activations come first for every target. The
    null is the agreement of the same clips' scores for the other targets.
    """
    tables = scores[by].transpose("clip", "layer", "neuron"), mean_score(reference, by=by)
    ranks, other = (table.copy(data=rankdata(table.values, axis=-1)) for table in tables)
    return xr.corr(ranks, other, "neuron").rename("rank_correlation").drop_vars(["target", "value"], errors="ignore")


@torch.no_grad()
def segment_response(
    model,
    clips,
    *,
    seconds=0.1,
    baseline="silence",
    layers="all",
    part="block",
    frames="speech",
    fade=0.005,
    seed=0,
    batch=16,
) -> xr.DataArray:
    """What each segment of the input does to the activation of every neuron.

    Each segment is replaced in turn, and all neurons of all layers are read from the same forward, which stops at the
    highest layer asked for.

    Parameters
    ----------
    seconds : float
        Length of the segments; the last one takes what is left of the clip.
    baseline : str
        What stands in for a segment: "silence", or "noise" of the segment's own mean and SD.
    frames : str
        Over which frames an activation is averaged: "speech" (of the clean clip) or "all".
    fade : float
        Seconds over which a segment's edges are blended, inside the segment; 0 cuts.

    Returns
    -------
    DataArray [clip, segment, layer, neuron]
        Mean activation of the clean clip minus that without the segment; NaN beyond the `n_segments` of a clip.
        `seconds` on `segment` is its start.

    Raises
    ------
    ValueError
        Unknown layer, part, frames or baseline, or not one usable clip.

    References
    ----------
    captum.attr.NeuronFeatureAblation, which it equals for a neuron and a mask of the same segments (fade 0).
    """
    model.require_trained()
    if baseline not in ("silence", "noise"):
        raise ValueError(f'unknown baseline {baseline!r}: "silence" or "noise"')
    sites = model.sites(part, layers)
    skipped, rows = {}, {}
    for index, waveform, keep in usable(model, clips, frames, skipped):
        noise = None
        if baseline == "noise":
            noise = np.random.default_rng([seed, clips.index.get_loc(index)]).standard_normal(len(waveform))
            noise = torch.as_tensor(noise, dtype=torch.float32, device=model.device)
        x, cut = model.tensor(waveform)[0], round(fade * model.sample_rate)
        rows[index] = _respond(model, x, sites, keep, windows(model, len(x), seconds), noise, cut, batch)
    response, made = targets.padded(list(rows.values())), {"length": seconds, "baseline": baseline}
    start = np.arange(response.shape[1]) * round(seconds * model.sample_rate) / model.sample_rate
    return xr.DataArray(
        response,
        {
            **targets.coordinates(clips, rows, n_segments=[len(row) for row in rows.values()]),
            **targets.axes(sites, response),
            "seconds": ("segment", start),
        },
        ("clip", "segment", "layer", "neuron"),
        "response",
        targets.attributes(model, skipped, method="segment_response", part=part, frames=frames, **made),
    )


def _respond(model, x, sites, keep, shape, noise, fade, batch):
    """Responses of one clip [segment, layer, neuron]."""
    width, count = shape
    edges = np.append(np.arange(count) * width, len(x))

    def read(chosen):  # row 0 is the clean clip, row i without segment i − 1
        rows = [_without(x, edges[i - 1], edges[i], fade, noise) if i else x for i in chosen]
        with hooks.capture(model, sites) as seen:
            execution.prefix(model, torch.stack(rows), sites[-1].layer)
        return torch.stack([seen[site][:, keep].mean(dim=1) for site in sites], dim=1)

    seen = torch.cat([*execution.in_batches(read, count + 1, batch)])
    return (seen[:1] - seen[1:]).cpu().numpy()


def _without(x, start, stop, fade, noise):
    """The waveform [time] with a segment replaced, its edges blended by raised cosines of `fade` samples."""
    part = x[start:stop]
    other = 0 if noise is None else part.mean() + part.std(correction=0) * noise[start:stop]
    fade = min(fade, len(part) // 2)
    ramp = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(fade, device=x.device) + 0.5) / max(fade, 1))
    weight = torch.cat([ramp, ramp.new_ones(len(part) - 2 * fade), ramp.flip(0)])
    return torch.cat([x[:start], part + weight * (other - part), x[stop:]])
