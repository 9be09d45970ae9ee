"""Activations of every neuron on every clip, from one forward per clip, in memory or streamed to a file."""

from contextlib import suppress
from functools import cache

import numpy as np
import torch
import xarray as xr

from .. import audio, hooks, results
from ..corpora import as_clips
from ..models import require_model
from . import storage


def require_named_frames(frames) -> None:
    """Raise ValueError unless `frames` is "all" or "speech"."""
    if not isinstance(frames, str) or frames not in ("all", "speech"):
        raise ValueError(f'unknown frames {frames!r}: use "all" or "speech"')


def usable(model, clips, frames, skipped, *, silent="skip"):
    """Yield (index, waveform, bool [frame]: which frames count) of readable clips; the others go to `skipped`.

    `frames` is "all" or "speech" (`audio.speech_mask`), or frame numbers: then every valid frame counts, as with "all",
    and a clip that lacks one of the numbers is skipped. A clip in which no speech is found is skipped too; with
    `silent="all"`, all its frames count. NoClips is raised where no clip is usable.
    """
    frame_numbers = np.zeros(0, int) if isinstance(frames, str) else np.atleast_1d(frames)
    if isinstance(frames, str):
        require_named_frames(frames)
    for index, waveform in model.stream(clips, skipped):
        speech_only = isinstance(frames, str) and frames == "speech"
        keep = model.speech(waveform) if speech_only else model.valid_frames(waveform)
        out_of_range = frame_numbers[(frame_numbers < 0) | (frame_numbers >= len(keep))]
        if len(out_of_range):
            skipped[index] = f"frame {out_of_range[0]} out of range: the clip has 0–{len(keep) - 1}"
            continue
        if silent == "all" and not keep.any():
            keep = model.valid_frames(waveform)
        if keep.any():
            yield index, waveform, keep
        else:
            skipped[index] = "no speech was found in it: use frames='all'"
    if skipped and len(skipped) == len(clips):
        raise audio.NoClips(skipped)


@torch.no_grad()
def forwards(model, clips, sites, skipped, read, *, frames="all", batch=1):
    """Yield lists of (index, {site: `read(hidden, keep)`}, logits [label]), one list per forward.

    A forward takes up to `batch` consecutive clips of equal length. `read` gets a clip's hidden state at one site,
    [frame, neuron], and a function from its number of frames to a mask of those that count (`frame_selector`), as soon
    as the forward has reached the site: what it leaves out is not held. Clips that cannot be read go to `skipped`.
    """
    for group in _groups(model.stream(clips, skipped), batch):
        mask_functions = [frame_selector(model, waveform, frames) for _, waveform in group]

        def read_rows(hidden, mask_functions=mask_functions):
            if len(hidden) != len(mask_functions):
                raise ValueError(
                    f"a site returned {len(hidden)} rows for {len(mask_functions)} clips: check `layout` in models.wrap"
                )
            return [read(row, keep) for row, keep in zip(hidden, mask_functions, strict=True)]

        with hooks.capture(model, sites, read_rows) as seen:
            logits = model.logits(torch.cat([model.tensor(waveform) for _, waveform in group]))
        yield [(index, {site: seen[site][row] for site in sites}, logits[row]) for row, (index, _) in enumerate(group)]


def _groups(stream, batch):
    """Yield lists of up to `batch` consecutive (index, waveform), each of one length."""
    group = []
    for item in stream:
        if group and (len(group) == batch or len(item[1]) != len(group[0][1])):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def frame_selector(model, waveform, frames="speech"):
    """Return a function from a number of frames to which of them count, a bool tensor: class tokens never do.

    `frames` is "all" of the clip or "speech"; where a clip has no speech, all its frames count.
    """

    @cache
    def keep(n):
        valid_frames = model.valid_frames(waveform, n)
        mask = model.speech(waveform, n) if frames == "speech" else valid_frames
        if len(mask) != n:
            raise ValueError(f"a site returned {n} frames where the model has {len(mask)}: they cannot be aligned")
        return torch.as_tensor(mask if mask.any() else valid_frames, device=model.device)

    return keep


def hidden_states(model, clips, sites, skipped, *, frames="all"):
    """Yield (index, hidden [site, frame, neuron], logits [label]) of each clip, at the frames that count."""

    def read(hidden, keep):
        return hidden[keep(len(hidden))]

    for ((index, hidden, logits),) in forwards(model, clips, sites, skipped, read, frames=frames):
        yield index, torch.stack(list(hidden.values())), logits


def activations(
    model, clips, sites="ffn_hidden", *, pool="mean", frames="speech", file=None, batch=1, sample_rate=None
) -> xr.Dataset:
    """Compute the activation of every neuron on every clip, its frames pooled into one number, and the logits.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    sites : str, Site or sequence
        A part, in all layers; or several: parts, `Site`, (layer, part), layers and paths of modules.
    pool : {"mean", "max", "cls", "top-0.1"}
        The mean or the maximum of the frames that count, or the mean of each neuron's highest tenth (or any other
        share) of them; "cls" is the mean of the class tokens, which are not frames in any of the others. Where a site
        has no frames, such as a classifier's output, it is the value itself.
    frames : {"speech", "all"}
        Which of the clip's valid frames count; where it has no speech, all do.
    file : str or Path, optional
        Rows are written there as they are computed, so that memory does not grow with the clips; `open_activations`
        reads it. Its name ends in ".part" until all rows are in it, and a run that was stopped is resumed from it.
    batch : int
        Up to so many consecutive clips of equal length share a forward.

    Returns
    -------
    Dataset
        `activation` [clip, layer, neuron], or [clip, unit] with `unit` (part, layer, neuron) where the sites are of
        several parts or widths; `logit` [clip, target], where there are labels; `magnitude`, the mean of |activation|
        over the frames that count and then clips. Clips that could not be used are named in `attrs["skipped"]`.

    Raises
    ------
    ValueError
        An unknown site or pool, or class tokens where the model has none. A file that holds anything else, such as
        activations of other weights, clips (by their sound), options or code; with a file, inside of `hooks.edit`.

    Examples
    --------
    >>> from xai_lib import activations, corpora, models
    >>> clips = corpora.balanced(corpora.load("sample"), 4)
    >>> result = activations.activations(models.load("pocket"), clips, "hidden_state")
    >>> dict(result["activation"].sizes)
    {'clip': 4, 'layer': 7, 'neuron': 144}
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    sites, reduce = _sites(model, sites), _pooling(model, pool)
    require_named_frames(frames)
    dims, coords = storage.units(model, sites)
    attrs = {"part": ", ".join(dict.fromkeys(site.part for site in sites)), "pool": pool, "frames": frames}
    if model.labels:
        coords["target"] = model.labels

    def rows(clips, skipped):
        for group in forwards(model, clips, sites, skipped, reduce, frames=frames, batch=batch):
            yield [(index, *_concatenate(pooled), logits.cpu().numpy()) for index, pooled, logits in group]

    if file is not None:
        return storage.write_activations(file, model, clips, coords, dims, attrs, rows)
    skipped, outputs, total = {}, {}, 0
    for group in rows(clips, skipped):
        for index, values, size, logits in group:
            outputs[index], total = (values, logits), total + size
    values, logits = (np.stack(arrays) for arrays in zip(*outputs.values()))
    shape = [len(coords[dim]) for dim in dims] if "unit" not in dims else [values.shape[1]]
    data = {
        "activation": (("clip", *dims), values.reshape(-1, *shape)),
        "magnitude": (dims, (total / len(outputs)).reshape(shape)),
    }
    if model.labels:
        data["logit"] = ("clip", "target"), logits
    attrs = results.attributes(model, skipped, **attrs)
    return storage.with_unit_index(xr.Dataset(data, {**coords, **results.coordinates(clips, outputs)}, attrs))


def _sites(model, sites) -> list:
    """Return the named sites, each once, in order."""
    pair = isinstance(sites, tuple) and [isinstance(item, str) for item in sites] == [False, True]  # (layer, part)
    resolved = []
    for name in [sites] if pair or isinstance(sites, (str, int, np.integer, hooks.Site)) else sites:
        resolved += model.sites(name) if name in model.architecture.parts else [model.check(name)]
    if not resolved:
        raise ValueError("no sites: name a part, or give Site, (layer, part) or paths of modules")
    return list(dict.fromkeys(resolved))


def _pooling(model, pool):
    """Return the function that pools a hidden state [frame, neuron] into activation and magnitude [neuron]."""
    share, tokens = 0.0, model.architecture.class_tokens
    if str(pool).startswith("top-"):
        with suppress(ValueError):
            share = float(pool.removeprefix("top-"))
    if pool not in ("mean", "max", "cls") and not 0 < share <= 1:
        raise ValueError(
            f'unknown pool {pool!r}: use "mean", "max", "cls", or a share of the highest frames as in "top-0.1"'
        )
    if pool == "cls" and not tokens:
        raise ValueError(f'{model.name} has no class tokens: pool its frames with "mean", "max" or "top-0.1"')

    def reduce(hidden, keep):
        if len(hidden) > 1:
            hidden = hidden[:tokens] if pool == "cls" else _select_frames(hidden, keep(len(hidden)))
        if pool == "max":
            activation = hidden.amax(dim=0)
        elif share:
            activation = hidden.topk(max(round(share * len(hidden)), 1), dim=0).values.mean(dim=0)
        else:
            activation = hidden.mean(dim=0)
        magnitude = hidden.abs().mean(dim=0)  # faster than a vector norm of order 1
        return activation, magnitude

    return reduce


def _select_frames(hidden, keep):
    """Select the frames that count, [frame, neuron]: without a copy where they are consecutive."""
    numbers = keep.nonzero().flatten()
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers):
        return hidden[first : last + 1]
    return hidden[keep]


def _concatenate(pooled):
    """Concatenate activation and magnitude [unit] of all sites, from {site: (activation, magnitude)}."""
    activations, magnitudes = zip(*pooled.values(), strict=True)
    return torch.cat(activations).float().cpu().numpy(), torch.cat(magnitudes).double().cpu().numpy()
