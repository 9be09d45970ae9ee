"""Class probabilities through long recordings, in overlapping windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from .. import audio, results
from ..corpora import as_clips

if TYPE_CHECKING:
    from .model import Model


@torch.no_grad()
def over_time(
    model: Model, recordings, sample_rate: int | None = None, *, window: float = 4.0, step: float = 1.0, batch: int = 8
) -> xr.Dataset:
    """Compute the probability of each class in windows of a recording, such as a call or an interview.

    Memory does not grow with the recording, except for its samples (an hour at 16 kHz takes 230 MB).

    Parameters
    ----------
    recordings, sample_rate
        One or several recordings, as for `corpora.as_clips`.
    window, step : float
        Length of a window, and distance between the starts of successive windows, in seconds.
    batch : int
        Number of windows of equal length in one forward pass.

    Returns
    -------
    Dataset
        `probability` (`Model.scores`) [clip, window, target], NaN where a window is silent or the recording has ended,
        with the coordinates `start`, `end` and `time`, the middle (seconds) [clip, window]; the columns of `clips` as
        coordinates; and `attrs["skipped"]`. The last window ends with the recording, so it overlaps more with the one
        before.

    Raises
    ------
    ValueError
        The window is longer than the model takes in one forward pass, or the step is longer than the window, which
        would skip sound.
    """
    model.require_trained()
    _check_options(model, window, step, batch)
    clips = as_clips(recordings, sample_rate)
    rate = model.sample_rate
    skipped = {}
    probabilities = {}  # [window, target] of each recording
    seconds = {}  # start and end [window, 2] of each recording
    for index, waveform in audio.stream(clips, rate, shortest=model.span, skipped=skipped):
        bounds = _window_bounds(len(waveform), round(window * rate), round(step * rate))
        probabilities[index] = _probabilities(model, waveform, bounds, batch)
        seconds[index] = np.array(bounds) / rate

    bounds_seconds = _stack(seconds.values())
    coords = results.coordinates(clips, probabilities)
    coords["target"] = model.labels
    coords["start"] = ("clip", "window"), bounds_seconds[..., 0]
    coords["end"] = ("clip", "window"), bounds_seconds[..., 1]
    coords["time"] = ("clip", "window"), bounds_seconds.mean(axis=-1)
    attrs = results.attributes(model, skipped, method="over_time", window=window, step=step)
    return xr.Dataset({"probability": (("clip", "window", "target"), _stack(probabilities.values()))}, coords, attrs)


def _check_options(model, window, step, batch):
    """Raise ValueError if an option of `over_time` is not a number, or out of its range."""
    for name, seconds in {"window": window, "step": step}.items():
        if not isinstance(seconds, (int, float, np.integer, np.floating)):
            raise ValueError(f"{name} must be a number of seconds, not {seconds!r}")
    if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or batch < 1:
        raise ValueError(f"batch must be an integer of at least 1, not {batch!r}")
    if not 1 / model.sample_rate <= step <= window:
        raise ValueError(
            f"step must lie between one sample and the window of {window:g} s, not {step!r}: no sound may be skipped"
        )
    if window > model.max_seconds:
        raise ValueError(
            f"a window of {window:g} s is longer than the {model.max_seconds:g} s that {model.name} takes in one "
            "forward pass: use a shorter window"
        )


def _stack(recordings) -> np.ndarray:
    """Return [window, …] of several recordings as [recording, window, …], NaN beyond the last window of each."""
    arrays = list(recordings)
    n_windows = max(len(values) for values in arrays)
    stacked = np.full((len(arrays), n_windows, arrays[0].shape[1]), np.nan)
    for row, values in enumerate(arrays):
        stacked[row, : len(values)] = values
    return stacked


def _window_bounds(length, window, step) -> list[tuple[int, int]]:
    """Return start and end of each window in samples; a recording shorter than a window is one window."""
    if length <= window:
        return [(0, length)]
    starts = [*range(0, length - window, step), length - window]
    return [(start, start + window) for start in starts]


def _probabilities(model, waveform, bounds, batch) -> np.ndarray:
    """Return probabilities [window, target]; NaN for silent windows."""
    values = np.full((len(bounds), len(model.labels)), np.nan)
    windows = [waveform[start:end] for start, end in bounds]
    not_silent = [index for index, samples in enumerate(windows) if np.ptp(samples) > 0]
    for first in tqdm(range(0, len(not_silent), batch), "windows", leave=False, delay=2):
        group = not_silent[first : first + batch]
        logits = model.logits(torch.cat([model.tensor(windows[index]) for index in group]))
        values[group] = model.scores(logits).double().cpu().numpy()
    return values
