"""What an edit does to the neurons of a site: a mode, at the frames of a policy. An edit is a function."""

from functools import partial

import numpy as np
import torch

MODES = ("flip", "zero", "mean", "noise", "resample", "patch")
NEEDS = {"mean": "means", "noise": "stds", "resample": "values", "patch": "values"}
FRAMES = ("all", "speech", "max_frame", "peak_frames")


def edit(
    neurons,
    mode="flip",
    *,
    frames="all",
    window=0,
    n_peaks=5,
    speech=None,
    means=None,
    stds=None,
    values=None,
    scale=1.0,
    seed=0,
):
    """Make a function on [batch, frame, neuron] that edits some neurons in some frames and leaves the rest.

    Parameters
    ----------
    neurons : int, sequence of int, or array [neuron, direction]
        Which neurons of the site; "all" for every one. Or orthonormal directions, of `directions`: what the activation
        is along each of them is edited as if it were a neuron (not with noise).
    mode : {"flip", "zero", "mean", "noise", "resample", "patch"}
        × −1; 0; the neuron's mean (`means`); plus Gaussian noise of `scale` times its deviation (`stds`), the same at
        every call with the same `seed`; what it is in another clip (`values`), cut or repeated to this one's length
        (resample), or stretched to it, as fits the same words said otherwise (patch).
    frames : {"all", "speech", "max_frame", "peak_frames"} or sequence of int
        Every frame; those where `speech` is true; for each neuron its own frame of largest magnitude; the `n_peaks`
        frames where the chosen neurons together are largest (sum of magnitudes); or the given ones.
    window : int
        Frames to either side that are edited too.
    speech : bool array [frame], optional
        From `audio.speech_mask`.
    means, stds : array [all neurons of the site], optional
        Over the training clips.
    values : tensor [frame, all neurons of the site], optional
        Activation of the other clip, the donor.

    Raises
    ------
    ValueError
        Unknown mode or policy, or one that lacks what it needs; when called, frames that the clip does not have.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}: the modes are {', '.join(MODES)}")
    check_frames(frames)
    if window < 0 or n_peaks < 1:
        raise ValueError(f"window must be 0 or more and n_peaks 1 or more, not {window} and {n_peaks}")
    if {"means": means, "stds": stds, "values": values}.get(NEEDS.get(mode), 0) is None:
        raise ValueError(f"{NEEDS[mode]}= is needed for {mode}")
    if isinstance(frames, str) and frames == "speech" and speech is None:
        raise ValueError("speech= is needed for frames='speech'")
    if np.ndim(neurons) == 2:
        if mode == "noise":
            raise ValueError("noise is of neurons, not of directions: how far those vary is not known")
    elif not isinstance(neurons, str):
        neurons = np.unique(whole(neurons, "neurons"))
    if not isinstance(frames, str):
        frames = whole(frames, "frames")
    return partial(_edit, neurons, mode, frames, window, n_peaks, speech, means, stds, values, scale, seed)


def check_frames(frames) -> None:
    """ValueError where `frames` is the name of no policy."""
    if isinstance(frames, str) and frames not in FRAMES:
        raise ValueError(f"unknown frames {frames!r}: use {', '.join(FRAMES)} or a list of frames")


def directions(width, k, n, *, seed=0) -> list[np.ndarray]:
    """`n` random sets of `k` orthonormal directions among `width` neurons, each [neuron, direction], for `edit`.

    What editing so many neurons does beside what editing any k dimensions does: for neurons are a basis like any other
    unless the network makes them one.
    """
    rng = np.random.default_rng(seed)
    return [np.linalg.qr(rng.standard_normal((width, k)))[0] for _ in range(n)]


def given(sites, moments) -> dict:
    """{site: what `edit` needs of `activations.moments`}; nothing where they are None."""
    if moments is None:
        return {site: {} for site in sites}
    parts = {site: moments.sel(layer=site.layer) for site in sites}
    return {site: {"means": at["mean"].values, "stds": at["std"].values} for site, at in parts.items()}


def _edit(neurons, mode, frames, window, n_peaks, speech, means, stds, values, scale, seed, hidden):
    """The edited copy of `hidden`."""
    neurons = np.arange(hidden.shape[-1]) if isinstance(neurons, str) else neurons
    if len(neurons) == 0:
        return hidden
    if neurons.ndim == 2:
        basis = _like(neurons, hidden)
        pick = partial(torch.matmul, other=basis)
    elif neurons[0] < 0 or neurons[-1] >= hidden.shape[-1]:
        raise ValueError(f"neuron {neurons[-1]} out of range: this site has 0–{hidden.shape[-1] - 1}")
    else:
        index = torch.from_numpy(neurons).to(hidden.device)
        pick = partial(torch.index_select, dim=-1, index=index)
    chosen = pick(hidden)
    if mode == "flip":
        new = -chosen
    elif mode == "zero":
        new = torch.zeros_like(chosen)
    elif mode == "mean":
        new = pick(_like(means, hidden)).expand_as(chosen)
    elif mode == "noise":
        draw = torch.as_tensor(np.random.default_rng(seed).standard_normal(chosen.shape), dtype=hidden.dtype)
        new = chosen + scale * pick(_like(stds, hidden)) * draw.to(hidden.device)
    else:
        new = pick(_like(values, hidden))[_other(mode, len(values), chosen.shape[1])].expand_as(chosen)
    new = torch.where(_where(frames, chosen, window, n_peaks, speech), new, chosen)
    if neurons.ndim == 2:
        return hidden + (new - chosen) @ basis.T
    out = hidden.clone()
    out[..., index] = new
    return out


def whole(numbers, name) -> np.ndarray:
    """Numbers of neurons or frames; a mask, taken for numbers, would be the first two."""
    numbers = np.atleast_1d(np.asarray(numbers))
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        how = "of a mask, np.flatnonzero(mask); of a table, its column"
        raise ValueError(f"{name} are whole numbers, not {numbers.dtype}: {how}")
    return numbers.astype(np.int64)


def _like(values, hidden):
    return torch.as_tensor(values, dtype=hidden.dtype, device=hidden.device)


def _other(mode, n, count) -> np.ndarray:
    """Which of a donor's `n` frames stand in for those of a clip of `count`."""
    return np.resize(np.arange(n), count) if mode == "resample" else np.linspace(0, n - 1, count).round().astype(int)


def _where(frames, chosen, window, n_peaks, speech) -> torch.Tensor:
    """Which frames are edited: bool [batch, frame, chosen neuron], or one that broadcasts to it."""
    count = chosen.shape[1]
    where = torch.zeros_like(chosen, dtype=torch.bool)
    if not isinstance(frames, str):
        wrong = frames[(frames < 0) | (frames >= count)]
        if len(wrong):
            raise ValueError(f"frame {wrong[0]} out of range: the clip has 0–{count - 1}")
        where[:, torch.from_numpy(frames).to(chosen.device)] = True
    elif frames == "all":
        return ~where
    elif frames == "speech":
        mask = torch.as_tensor(speech, dtype=torch.bool, device=chosen.device)
        if mask.shape != (count,):
            raise ValueError(f"the speech mask has {tuple(mask.shape)} frames and the clip {count}")
        where |= mask[:, None]
    elif frames == "max_frame":
        where.scatter_(1, chosen.abs().argmax(1, keepdim=True), True)
    else:
        peaks = chosen.abs().sum(-1, keepdim=True).topk(min(n_peaks, count), dim=1).indices
        where.scatter_(1, peaks.expand(-1, -1, chosen.shape[-1]), True)
    if window:
        wide = torch.nn.functional.max_pool1d(where.transpose(1, 2).float(), 2 * window + 1, 1, window)
        where = wide.transpose(1, 2) > 0
    return where
