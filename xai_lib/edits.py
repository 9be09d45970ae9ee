"""Edits of the neurons of a site: functions, by a mode and at the frames of a frame policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
) -> NeuronEdit:
    """Return a function on [batch, frame, neuron] that edits some neurons in some frames and leaves all others.

    Parameters
    ----------
    neurons : int, sequence of int, or array [neuron, direction]
        Neurons of the site; "all" for every one. Or orthonormal directions, as returned by `directions`: what the
        activation is along each of them is edited as if it were a neuron (not with noise).
    mode : {"flip", "zero", "mean", "noise", "resample", "patch"}
        Sign flip (× −1); 0; the neuron's mean (`means`); plus Gaussian noise of `scale` times its standard deviation
        (`stds`), the same at every call with the same `seed`; its activation in another clip (`values`), cut or
        repeated to this one's length (resample), or stretched to it, as fits the same words spoken differently (patch).
    frames : {"all", "speech", "max_frame", "peak_frames"} or sequence of int
        Every frame; those where `speech` is true; for each neuron its own frame of largest magnitude; the `n_peaks`
        frames where the selected neurons together are largest (sum of magnitudes); or the listed frames.
    window : int
        Frames to either side that are edited too.
    speech : bool array [frame], optional
        As returned by `audio.speech_mask`.
    means, stds : array [all neurons of the site], optional
        Over the training clips.
    values : tensor [frame, all neurons of the site], optional
        Activation of the other clip, the donor.

    Raises
    ------
    ValueError
        Unknown mode or frame policy, or a missing argument that it needs; when called, frames that the clip does not
        have.

    Examples
    --------
    >>> import torch
    >>> from xai_lib import edits
    >>> flip = edits.edit([1], "flip")
    >>> flip(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[ 1., -2.,  3.]]])
    >>> first_frame = edits.edit("all", "zero", frames=[0])
    >>> first_frame(torch.ones(1, 2, 3))
    tensor([[[0., 0., 0.],
             [1., 1., 1.]]])
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}: the modes are {', '.join(MODES)}")
    check_frames(frames)
    if window < 0 or n_peaks < 1:
        raise ValueError(f"window must be 0 or more and n_peaks 1 or more, not {window} and {n_peaks}")
    needed = NEEDS.get(mode)
    if needed is not None and {"means": means, "stds": stds, "values": values}[needed] is None:
        raise ValueError(f"{needed}= is needed for {mode}")
    if isinstance(frames, str) and frames == "speech" and speech is None:
        raise ValueError("speech= is needed for frames='speech'")
    if np.ndim(neurons) == 2:
        if mode == "noise":
            raise ValueError("mode 'noise' takes neurons, not directions, whose standard deviation is not known")
    elif not isinstance(neurons, str):
        neurons = np.unique(as_integers(neurons, "neurons"))
    if not isinstance(frames, str):
        frames = as_integers(frames, "frames")
    return NeuronEdit(neurons, mode, frames, window, n_peaks, speech, means, stds, values, scale, seed)


@dataclass(frozen=True, eq=False)
class NeuronEdit:
    """Function on [batch, frame, neuron] that edits some neurons in some frames, as returned by `edit`."""

    neurons: np.ndarray | str  # [neuron], [neuron, direction], or "all"
    mode: str
    frames: np.ndarray | str
    window: int
    n_peaks: int
    speech: np.ndarray | None  # [frame]
    means: np.ndarray | None  # [all neurons]
    stds: np.ndarray | None  # [all neurons]
    values: torch.Tensor | None  # [frame of the donor, all neurons]
    scale: float
    seed: int | tuple

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the edited copy of `hidden`; `hidden` itself where no neuron is edited."""
        neurons = np.arange(hidden.shape[-1]) if isinstance(self.neurons, str) else self.neurons
        if len(neurons) == 0:
            return hidden
        if neurons.ndim == 2:
            return self._edit_directions(hidden, _tensor_like(neurons, hidden))
        _require_in_range(neurons, hidden.shape[-1])
        index = torch.from_numpy(neurons).to(hidden.device)
        edited = hidden.clone()
        edited[..., index] = self._edit_selected(hidden, lambda values: values.index_select(-1, index))
        return edited

    def _edit_directions(self, hidden, basis):
        """Edit what `hidden` is along each direction of an orthonormal basis [neuron, direction]."""
        selected = hidden @ basis
        change = self._edit_selected(hidden, lambda values: values @ basis) - selected
        return hidden + change @ basis.T

    def _edit_selected(self, hidden, select: Callable) -> torch.Tensor:
        """Return the edited values [batch, frame, selected]; `select` takes [..., all neurons] to [..., selected]."""
        selected = select(hidden)
        new = self._new_values(hidden, selected, select)
        mask = _frame_mask(self.frames, selected, self.window, self.n_peaks, self.speech)
        return torch.where(mask, new, selected)

    def _new_values(self, hidden, selected, select) -> torch.Tensor:
        """Return what the mode puts in the place of `selected`, in every frame."""
        if self.mode == "flip":
            return -selected
        if self.mode == "zero":
            return torch.zeros_like(selected)
        if self.mode == "mean":
            return select(_tensor_like(self.means, hidden)).expand_as(selected)
        if self.mode == "noise":
            noise = np.random.default_rng(self.seed).standard_normal(selected.shape)
            noise = torch.as_tensor(noise, dtype=hidden.dtype).to(hidden.device)
            return selected + self.scale * select(_tensor_like(self.stds, hidden)) * noise
        frames_of_donor = _donor_frames(self.mode, len(self.values), selected.shape[1])
        return select(_tensor_like(self.values, hidden))[frames_of_donor].expand_as(selected)


def check_frames(frames) -> None:
    """Raise ValueError where `frames` is None, or a text that names no policy."""
    if frames is None:
        raise ValueError(f"frames must be {', '.join(FRAMES)} or a list of frames, not None")
    if isinstance(frames, str) and frames not in FRAMES:
        raise ValueError(f"unknown frames {frames!r}: use {', '.join(FRAMES)} or a list of frames")


def directions(width, k, n, *, seed=0) -> list[np.ndarray]:
    """Draw `n` random sets of `k` orthonormal directions among `width` neurons, each [neuron, direction], for `edit`.

    They show what editing k neurons does beyond what editing any k dimensions does: neurons are a basis like any other
    unless the network makes them a special one.
    """
    rng = np.random.default_rng(seed)
    return [np.linalg.qr(rng.standard_normal((width, k)))[0] for _ in range(n)]


def statistics_arguments(sites, activation_stats) -> dict:
    """Return {site: arguments of `edit` from `activations.activation_stats`}; no arguments where these are None."""
    if activation_stats is None:
        return {site: {} for site in sites}
    arguments = {}
    for site in sites:
        statistics = activation_stats.sel(layer=site.layer)
        arguments[site] = {"means": statistics["mean"].values, "stds": statistics["std"].values}
    return arguments


def _require_in_range(neurons, n_neurons) -> None:
    """Raise ValueError where a neuron, of an ascending list, is none of the site's."""
    outside = [neuron for neuron in (neurons[0], neurons[-1]) if not 0 <= neuron < n_neurons]
    if outside:
        raise ValueError(f"neuron {outside[0]} out of range: this site has 0–{n_neurons - 1}")


def as_integers(numbers, name) -> np.ndarray:
    """Return numbers of neurons or frames as integers; raise ValueError for anything else, such as a mask.

    Read as numbers, a mask would mean the first two neurons.
    """
    numbers = np.atleast_1d(np.asarray(numbers))
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        advice = "for a mask give np.flatnonzero(mask), for a table its column"
        raise ValueError(f"{name} must be whole numbers, not {numbers.dtype}: {advice}")
    return numbers.astype(np.int64)


def _tensor_like(values, hidden):
    """Return `values` as a tensor of the dtype and on the device of `hidden`."""
    return torch.as_tensor(values, dtype=hidden.dtype, device=hidden.device)


def _donor_frames(mode, n, count) -> np.ndarray:
    """Return which of a donor's `n` frames replace those of a clip of `count` frames."""
    return np.resize(np.arange(n), count) if mode == "resample" else np.linspace(0, n - 1, count).round().astype(int)


def _frame_mask(frames, selected, window, n_peaks, speech) -> torch.Tensor:
    """Return which frames are edited: bool [batch, frame, selected neuron]."""
    count = selected.shape[1]
    mask = torch.zeros_like(selected, dtype=torch.bool)
    if not isinstance(frames, str):
        out_of_range = frames[(frames < 0) | (frames >= count)]
        if len(out_of_range):
            raise ValueError(f"frame {out_of_range[0]} out of range: the clip has 0–{count - 1}")
        mask[:, torch.from_numpy(frames).to(selected.device)] = True
    elif frames == "all":
        return ~mask
    elif frames == "speech":
        speech_mask = torch.as_tensor(speech, dtype=torch.bool, device=selected.device)
        if speech_mask.shape != (count,):
            raise ValueError(f"the speech mask has {tuple(speech_mask.shape)} frames and the clip {count}")
        mask |= speech_mask[:, None]
    elif frames == "max_frame":
        mask.scatter_(1, selected.abs().argmax(1, keepdim=True), True)
    else:
        peaks = selected.abs().sum(-1, keepdim=True).topk(min(n_peaks, count), dim=1).indices
        mask.scatter_(1, peaks.expand(-1, -1, selected.shape[-1]), True)
    if window:
        widened = torch.nn.functional.max_pool1d(mask.transpose(1, 2).float(), 2 * window + 1, 1, window)
        mask = widened.transpose(1, 2) > 0
    return mask
