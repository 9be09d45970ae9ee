"""Occlusion: the effect of each segment of the input on every neuron of every layer, by replacing the segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import execution, hooks, results, targets
from ..activations import usable
from ..corpora import as_clips
from ..models import require_model
from .gradientshap import windows

if TYPE_CHECKING:
    from ..models import Model

BASELINES = ("silence", "noise", "mean")


@torch.no_grad()
def segment_response(
    model: Model,
    clips,
    *,
    seconds: float = 0.1,
    baseline: str | float | np.ndarray | Callable[[np.ndarray], np.ndarray] = "silence",
    layers: str | int | Sequence[int] = "all",
    part: str = "hidden_state",
    frames: str | int = "speech",
    respond: Callable[[torch.Tensor], torch.Tensor] | None = None,
    fade: float = 0.005,
    seed: int = 0,
    batch: int = 16,
    sample_rate: int | None = None,
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
    require_model(model)
    clips = as_clips(clips, sample_rate)
    model.require_trained()
    if isinstance(baseline, str) and baseline not in BASELINES:
        raise ValueError(
            f"unknown baseline {baseline!r}: use {', '.join(BASELINES)}, a number, a waveform or a callable"
        )
    sites = model.sites(part, layers)
    fade_samples = round(fade * model.sample_rate)
    skipped = {}
    rows = {}
    durations = []
    for index, waveform, frame_mask in usable(model, clips, frames, skipped):
        width, count = windows(model, len(waveform), seconds)
        edges = [*range(0, count * width, width), len(waveform)]
        rng = np.random.default_rng(targets.key(seed, index, targets.SEED_SEGMENT_RESPONSE))
        replacement = _replacement(baseline, waveform, edges, rng, index)
        counted = [int(frames)] if isinstance(frames, (int, np.integer)) else frame_mask
        rows[index] = _measure_responses(
            model, waveform, replacement, edges, fade_samples, sites=sites, frames=counted, respond=respond, batch=batch
        )
        durations.append(len(waveform) / model.sample_rate)

    response = results.padded(list(rows.values()))
    length = round(seconds * model.sample_rate) / model.sample_rate
    coordinates = {
        **results.coordinates(clips, rows, n_segments=[len(row) for row in rows.values()], duration=durations),
        **results.axes(sites, response),
        "seconds": ("segment", np.arange(response.shape[1]) * length),
    }
    attrs = {
        "method": "segment_response",
        "part": part,
        "length": length,
        "baseline": baseline if isinstance(baseline, (str, int, float)) else "given",
        "frames": frames,
        "fade": fade,
        "seed": seed,
        "respond": "mean" if respond is None else getattr(respond, "__name__", "given"),
    }
    return xr.DataArray(
        response,
        coordinates,
        ("clip", "segment", "layer", "neuron"),
        "response",
        results.attributes(model, skipped, **attrs),
    )


def summary(response: xr.DataArray) -> xr.Dataset:
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


def top_segments(response: xr.DataArray, layer: int, neuron: int, k: int = 3) -> pd.DataFrame:
    """Return the `k` segments of each clip to which a neuron responds most, in either direction.

    Returns
    -------
    DataFrame, strongest first within a clip: `clip`, `segment`, `start`, `stop` (s), `response`.
        To listen to them: `deletion_test.gate(waveform, keep, window=response.attrs["length"])`, with `keep` true at
        these segments, and to the others with `~keep`.
    """
    table = response.sel(layer=layer, neuron=neuron).to_dataframe().dropna(subset="response").reset_index()
    is_last = table["segment"] >= table["n_segments"] - 1
    table["start"] = table["seconds"]
    table["stop"] = (table["seconds"] + response.attrs["length"]).mask(is_last, table["duration"])

    clip_codes, _ = pd.factorize(table["clip"])  # clips stay in their order
    order = np.lexsort((-table["response"].abs(), clip_codes))
    table = table.iloc[order].groupby("clip", sort=False).head(k)
    return table[["clip", "segment", "start", "stop", "response"]].reset_index(drop=True)


def _replacement(baseline, waveform, edges, rng, index):
    """Return the waveform [time] whose stretches replace those of the clip."""
    if isinstance(baseline, str):
        return _named_replacement(baseline, waveform, edges, rng)
    if callable(baseline):
        other = baseline(waveform.copy())
    elif np.ndim(baseline) == 0:
        return np.full(len(waveform), baseline, np.float32)
    else:
        other = baseline
    if np.shape(other) != waveform.shape:
        raise ValueError(
            f"the baseline for clip {index} has the shape {np.shape(other)}: it must be as long as the clip, "
            f"{len(waveform)}"
        )
    return other


def _named_replacement(baseline, waveform, edges, rng):
    """Return the waveform [time] of one of BASELINES; noise has the mean and SD of the segment between two edges."""
    if baseline == "silence":
        return np.zeros(len(waveform), np.float32)
    if baseline == "mean":
        return np.full(len(waveform), waveform.mean(), np.float32)
    segments = np.split(waveform, edges[1:-1])
    lengths = np.diff(edges)
    mean = np.repeat([segment.mean() for segment in segments], lengths)
    sd = np.repeat([segment.std() for segment in segments], lengths)
    return mean + sd * rng.standard_normal(len(waveform))


def _measure_responses(model, waveform, replacement, edges, fade, *, sites, frames, respond, batch):
    """Compute the responses of one clip, [segment, layer, neuron], pooled over `frames`; `fade` is in samples."""
    wave = model.tensor(waveform)[0]
    other = model.tensor(replacement)[0]

    def read(rows):
        """Read all sites, [row, layer, neuron]: row 0 is the clean clip, and row i lacks segment i − 1."""
        waves = []
        for row in rows:
            if row == 0:
                waves.append(wave)
            else:
                waves.append(_without(wave, other, edges[row - 1], edges[row], fade))
        with hooks.capture(model, sites) as captured:
            execution.prefix(model, torch.stack(waves), sites[-1].layer)
        return torch.stack([_pooled(captured[site][:, frames], respond) for site in sites], dim=1)

    pooled = torch.cat(list(execution.in_batches(read, len(edges), batch)))
    return (pooled[:1] - pooled[1:]).cpu().numpy()


def _pooled(hidden, respond):
    """Pool [batch, frame, neuron] to [batch, output]."""
    if respond is None:
        return hidden.mean(dim=1)
    outputs = respond(hidden)
    is_tensor = isinstance(outputs, torch.Tensor)
    if not is_tensor or outputs.ndim not in (1, 2) or len(outputs) != len(hidden):
        returned = tuple(outputs.shape) if is_tensor else type(outputs).__name__
        raise ValueError(
            f"respond returned {returned} for frames {tuple(hidden.shape)}: it must return a tensor [batch] or "
            "[batch, output]"
        )
    return outputs.reshape(len(hidden), -1)


def _without(wave, replacement, start, stop, fade):
    """Return the waveform [time] with a segment replaced, its edges blended by raised cosines of `fade` samples."""
    fade = min(fade, (stop - start) // 2)
    phase = torch.pi * (torch.arange(fade, device=wave.device) + 0.5) / max(fade, 1)
    ramp = 0.5 - 0.5 * torch.cos(phase)
    plateau = ramp.new_ones(stop - start - 2 * fade)
    weight = torch.cat([ramp, plateau, ramp.flip(0)])

    segment = wave[start:stop]
    blended = segment + weight * (replacement[start:stop] - segment)
    return torch.cat([wave[:start], blended, wave[stop:]])
