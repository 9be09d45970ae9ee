"""Occlusion: the effect of each segment of the input on every neuron of every layer, by replacing the segment."""

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
    part="hidden_state",
    frames="speech",
    respond=None,
    fade=0.005,
    seed=0,
    batch=16,
    sample_rate=None,
) -> xr.DataArray:
    """Measure the effect of each segment of the input on the activation of every neuron.

    Each segment is replaced in turn, and all neurons of all layers are read from the same forward pass, which stops at
    the highest of `layers`. Memory does not grow with the number of segments, only with `batch`.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    seconds : float
        Length of the segments; the last one takes the remaining samples.
    baseline : str, number, array [time] or callable
        What replaces a segment: "silence", "noise" of the segment's own mean and SD, the clip's "mean"; a number; the
        same stretch of another waveform as long as the clip, or of the one that the callable returns for the clip's.
    frames : str or int
        Frames over which an activation is averaged: "speech" (of the clean clip), "all", or one frame. Clips that do
        not have it are in attrs["skipped"].
    respond : callable, optional
        Takes those frames of a site, [batch, frame, neuron], and returns [batch] or [batch, output], row by row: what
        is read in place of the mean over frames. The outputs are in the dim `neuron`.
    fade : float
        Seconds over which a segment's edges are blended, inside the segment; 0 cuts.
    batch : int
        Copies of the clip that share a forward pass.

    Returns
    -------
    DataArray [clip, segment, layer, neuron]
        Response to the clean clip minus that without the segment; NaN beyond the `n_segments` of a clip. `seconds` on
        `segment` is its start, `duration` on `clip` the clip's; attrs["length"] that of a segment.

    Raises
    ------
    UntrainedHead, ValueError
        A random head; an unknown layer, part, frames or baseline; a waveform or a value of `respond` of the wrong
        shape; no usable clip.

    References
    ----------
    captum.attr.NeuronFeatureAblation, which it equals for a neuron, or callable, and a mask of the same segments
    (fade 0).
    """
    clips = as_clips(clips, sample_rate)
    model.require_trained()
    if isinstance(baseline, str) and baseline not in BASELINES:
        raise ValueError(
            f"unknown baseline {baseline!r}: use {', '.join(BASELINES)}, a number, a waveform or a callable"
        )
    sites, single_frame = model.sites(part, layers), isinstance(frames, (int, np.integer))
    skipped, rows, durations = {}, {}, []
    for index, waveform, frame_mask in usable(model, clips, frames, skipped):
        width, count = windows(model, len(waveform), seconds)
        edges = [*range(0, count * width, width), len(waveform)]
        rng = np.random.default_rng(targets.key(seed, index, targets.SEED_SEGMENT_RESPONSE))
        replacement = model.tensor(_replacement(baseline, waveform, edges, rng, index))[0]
        wave, fade_samples = model.tensor(waveform)[0], round(fade * model.sample_rate)
        frame_mask = [int(frames)] if single_frame else frame_mask
        rows[index] = _respond(model, wave, replacement, edges, fade_samples, sites, frame_mask, respond, batch)
        durations.append(len(waveform) / model.sample_rate)
    response, length = results.padded(list(rows.values())), round(seconds * model.sample_rate) / model.sample_rate
    attrs = {"length": length, "baseline": baseline if isinstance(baseline, (str, int, float)) else "given"}
    attrs |= {
        "frames": frames,
        "fade": fade,
        "seed": seed,
        "respond": "mean" if respond is None else getattr(respond, "__name__", "given"),
    }
    coordinates = {"n_segments": [len(row) for row in rows.values()], "duration": durations}
    return xr.DataArray(
        response,
        {
            **results.coordinates(clips, rows, **coordinates),
            **results.axes(sites, response),
            "seconds": ("segment", np.arange(response.shape[1]) * length),
        },
        ("clip", "segment", "layer", "neuron"),
        "response",
        results.attributes(model, skipped, method="segment_response", part=part, **attrs),
    )


def summary(response) -> xr.Dataset:
    """Summarise how strongly each neuron responds to each clip, and to which segment most: [clip, layer, neuron].

    Over the segments of a clip: `mean_absolute`, the mean of |response|; `range`, the maximum minus the minimum; `sd`;
    and `peak`, the start (s) of the segment of greatest |response|.
    """
    size = np.abs(response)
    peak = response["seconds"].isel(segment=size.fillna(-1).argmax("segment"))
    variables = {
        "mean_absolute": size.mean("segment"),
        "range": response.max("segment") - response.min("segment"),
        "sd": response.std("segment"),
        "peak": peak.drop_vars(["segment", "seconds"], errors="ignore"),
    }
    return xr.Dataset(variables, attrs=response.attrs)


def top_segments(response, layer, neuron, k=3) -> pd.DataFrame:
    """Return the `k` segments of each clip to which a neuron responds most, in either direction.

    Returns
    -------
    DataFrame, strongest first within a clip: `clip`, `segment`, `start`, `stop` (s), `response`.
        To listen to them: `deletion_test.gate(waveform, keep, window=response.attrs["length"])`, with `keep` true at
        these segments, and to the others with `~keep`.
    """
    table = response.sel(layer=layer, neuron=neuron).to_dataframe().dropna(subset="response").reset_index()
    table["start"], stop = table["seconds"], table["seconds"] + response.attrs["length"]
    table["stop"] = stop.where(table["segment"] < table["n_segments"] - 1, table["duration"])
    order = np.lexsort((-table["response"].abs(), pd.factorize(table["clip"])[0]))
    table = table.iloc[order].groupby("clip", sort=False).head(k)
    return table[["clip", "segment", "start", "stop", "response"]].reset_index(drop=True)


def _replacement(baseline, waveform, edges, rng, index):
    """Return the waveform [time] whose stretches replace those of the clip."""
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


def _respond(model, wave, replacement, edges, fade, sites, frame_mask, respond, batch):
    """Compute the responses of one clip [segment, layer, neuron]."""

    def read(indices):  # row 0 is the clean clip, row i lacks segment i − 1
        waves = torch.stack([_without(wave, replacement, edges[i - 1], edges[i], fade) if i else wave for i in indices])
        with hooks.capture(model, sites) as captured:
            execution.prefix(model, waves, sites[-1].layer)
        return torch.stack([_pooled(captured[site][:, frame_mask], respond) for site in sites], dim=1)

    pooled = torch.cat([*execution.in_batches(read, len(edges), batch)])
    return (pooled[:1] - pooled[1:]).cpu().numpy()


def _pooled(hidden, respond):
    """Pool [batch, frame, neuron] to [batch, output]."""
    if respond is None:
        return hidden.mean(dim=1)
    outputs = respond(hidden)
    if not isinstance(outputs, torch.Tensor) or outputs.ndim not in (1, 2) or len(outputs) != len(hidden):
        returned = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ValueError(
            f"respond returned {returned} for frames {tuple(hidden.shape)}: it must return a tensor [batch] or "
            "[batch, output]"
        )
    return outputs.reshape(len(hidden), -1)


def _without(wave, replacement, start, stop, fade):
    """Return the waveform [time] with a segment replaced, its edges blended by raised cosines of `fade` samples."""
    fade = min(fade, (stop - start) // 2)
    ramp = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(fade, device=wave.device) + 0.5) / max(fade, 1))
    weight = torch.cat([ramp, ramp.new_ones(stop - start - 2 * fade), ramp.flip(0)])
    blended = wave[start:stop] + weight * (replacement[start:stop] - wave[start:stop])
    return torch.cat([wave[:start], blended, wave[stop:]])
