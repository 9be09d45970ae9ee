"""What each stretch of the input does to every neuron of every layer: replace it, and see what they lose."""

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import execution, hooks, results, targets
from ..activations import usable
from ..corpora import as_clips
from .gradientshap import windows

BASELINES = ("silence", "noise", "mean")


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
    respond=None,
    fade=0.005,
    seed=0,
    batch=16,
    sample_rate=None,
) -> xr.DataArray:
    """What each segment of the input does to the activation of every neuron.

    Each segment is replaced in turn, and all neurons of all layers are read from the same forward, which stops at the
    highest layer asked for. Memory does not grow with the number of segments, only with `batch`.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    seconds : float
        Length of the segments; the last one takes what is left of the clip.
    baseline : str, number, array [time] or callable
        What stands in for a segment: "silence", "noise" of the segment's own mean and SD, the clip's "mean"; a number;
        the same stretch of another waveform as long as the clip; or of what the callable makes of the clip's waveform.
    frames : str or int
        Over which frames an activation is averaged: "speech" (of the clean clip), "all", or one frame. Clips that do
        not have it are in attrs["skipped"].
    respond : callable, optional
        Takes those frames of a site, [batch, frame, neuron], and returns [batch] or [batch, output], row by row: what
        is read in place of the mean over frames. The outputs stand on the dim `neuron`.
    fade : float
        Seconds over which a segment's edges are blended, inside the segment; 0 cuts.
    batch : int
        Copies of the clip that share a forward.

    Returns
    -------
    DataArray [clip, segment, layer, neuron]
        Response to the clean clip minus that without the segment; NaN beyond the `n_segments` of a clip. `seconds` on
        `segment` is its start, `duration` on `clip` the clip's; attrs["length"] that of a segment.

    Raises
    ------
    UntrainedHead, ValueError
        A random head; unknown layer, part, frames or baseline; a waveform or an answer of `respond` of the wrong shape;
        not one usable clip.

    References
    ----------
    captum.attr.NeuronFeatureAblation, which it equals for a neuron, or callable, and a mask of the same segments
    (fade 0).
    """
    clips = as_clips(clips, sample_rate)
    model.require_trained()
    if isinstance(baseline, str) and baseline not in BASELINES:
        raise ValueError(f"unknown baseline {baseline!r}: {', '.join(BASELINES)}, a number, a waveform or a callable")
    sites, at_one = model.sites(part, layers), isinstance(frames, (int, np.integer))
    skipped, rows, durations = {}, {}, []
    for index, waveform, keep in usable(model, clips, frames, skipped):
        width, count = windows(model, len(waveform), seconds)
        edges = [*range(0, count * width, width), len(waveform)]
        rng = np.random.default_rng(targets.key(seed, index, targets.SEED_SEGMENT_RESPONSE))
        other = model.tensor(_replacement(baseline, waveform, edges, rng, index))[0]
        x, cut = model.tensor(waveform)[0], round(fade * model.sample_rate)
        rows[index] = _respond(model, x, other, edges, cut, sites, [int(frames)] if at_one else keep, respond, batch)
        durations.append(len(waveform) / model.sample_rate)
    response, length = results.padded(list(rows.values())), round(seconds * model.sample_rate) / model.sample_rate
    made = {"length": length, "baseline": baseline if isinstance(baseline, (str, int, float)) else "given"}
    made |= {
        "frames": frames,
        "fade": fade,
        "seed": seed,
        "respond": "mean" if respond is None else getattr(respond, "__name__", "given"),
    }
    about = {"n_segments": [len(row) for row in rows.values()], "duration": durations}
    return xr.DataArray(
        response,
        {
            **results.coordinates(clips, rows, **about),
            **results.axes(sites, response),
            "seconds": ("segment", np.arange(response.shape[1]) * length),
        },
        ("clip", "segment", "layer", "neuron"),
        "response",
        results.attributes(model, skipped, method="segment_response", part=part, **made),
    )


def summary(response) -> xr.Dataset:
    """How strongly each neuron responds to each clip, and to which moment most: [clip, layer, neuron].

    Over the segments of a clip: `mean_absolute`, the mean of |response|; `range`, the greatest minus the least; `sd`;
    and `peak`, the start (s) of the segment of greatest |response|.
    """
    size = np.abs(response)
    peak = response["seconds"].isel(segment=size.fillna(-1).argmax("segment"))
    parts = {
        "mean_absolute": size.mean("segment"),
        "range": response.max("segment") - response.min("segment"),
        "sd": response.std("segment"),
        "peak": peak.drop_vars(["segment", "seconds"], errors="ignore"),
    }
    return xr.Dataset(parts, attrs=response.attrs)


def top_segments(response, layer, neuron, k=3) -> pd.DataFrame:
    """The `k` segments of each clip to which a neuron responds most, either way.

    Returns
    -------
    DataFrame, strongest first within a clip: `clip`, `segment`, `start`, `stop` (s), `response`.
        To hear them: `deletion.gate(waveform, keep, window=response.attrs["length"])`, with `keep` true at these
        segments, and the rest with `~keep`.
    """
    table = response.sel(layer=layer, neuron=neuron).to_dataframe().dropna(subset="response").reset_index()
    table["start"], stop = table["seconds"], table["seconds"] + response.attrs["length"]
    table["stop"] = stop.where(table["segment"] < table["n_segments"] - 1, table["duration"])
    order = np.lexsort((-table["response"].abs(), pd.factorize(table["clip"])[0]))
    table = table.iloc[order].groupby("clip", sort=False).head(k)
    return table[["clip", "segment", "start", "stop", "response"]].reset_index(drop=True)


def _replacement(baseline, waveform, edges, rng, index):
    """The waveform [time] whose stretches stand in for those of the clip."""
    if isinstance(baseline, str):
        if baseline == "noise":
            parts, lengths = np.split(waveform, edges[1:-1]), np.diff(edges)
            mean, sd = (np.repeat([moment(part) for part in parts], lengths) for moment in (np.mean, np.std))
            return mean + sd * rng.standard_normal(len(waveform))
        baseline = 0.0 if baseline == "silence" else waveform.mean()
    other = baseline(waveform.copy()) if callable(baseline) else baseline
    if np.ndim(other) == 0 and not callable(baseline):
        return np.full(len(waveform), other, np.float32)
    if np.shape(other) != waveform.shape:
        shape, length = np.shape(other), len(waveform)
        raise ValueError(
            f"the baseline for clip {index} has the shape {shape}: it must be as long as the clip, {length}"
        )
    return other


def _respond(model, x, other, edges, fade, sites, keep, respond, batch):
    """Responses of one clip [segment, layer, neuron]."""

    def read(chosen):  # row 0 is the clean clip, row i without segment i − 1
        waves = torch.stack([_without(x, other, edges[i - 1], edges[i], fade) if i else x for i in chosen])
        with hooks.capture(model, sites) as seen:
            execution.prefix(model, waves, sites[-1].layer)
        return torch.stack([_pooled(seen[site][:, keep], respond) for site in sites], dim=1)

    seen = torch.cat([*execution.in_batches(read, len(edges), batch)])
    return (seen[:1] - seen[1:]).cpu().numpy()


def _pooled(hidden, respond):
    """[batch, frame, neuron] to [batch, output]."""
    if respond is None:
        return hidden.mean(dim=1)
    found = respond(hidden)
    if not isinstance(found, torch.Tensor) or found.ndim not in (1, 2) or len(found) != len(hidden):
        got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ValueError(
            f"respond was given {tuple(hidden.shape)} and returned {got}: [batch] or [batch, output], please"
        )
    return found.reshape(len(hidden), -1)


def _without(x, other, start, stop, fade):
    """The waveform [time] with a segment taken from `other`, its edges blended by raised cosines of `fade` samples."""
    fade = min(fade, (stop - start) // 2)
    ramp = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(fade, device=x.device) + 0.5) / max(fade, 1))
    weight = torch.cat([ramp, ramp.new_ones(stop - start - 2 * fade), ramp.flip(0)])
    return torch.cat([x[:start], x[start:stop] + weight * (other[start:stop] - x[start:stop]), x[stop:]])
