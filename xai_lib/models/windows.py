"""Class probabilities through long recordings, in overlapping windows."""

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from .. import audio, results
from ..corpora import as_clips


@torch.no_grad()
def over_time(model, recordings, sample_rate=None, *, window=4.0, step=1.0, batch=8) -> xr.Dataset:
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
    for name, seconds in (("window", window), ("step", step)):
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
    clips = as_clips(recordings, sample_rate)
    rate, skipped, rows = model.sample_rate, {}, {}
    for index, waveform in audio.stream(clips, rate, shortest=model.span, skipped=skipped):
        bounds = _window_bounds(len(waveform), round(window * rate), round(step * rate))
        probability = _probabilities(model, waveform, bounds, batch)
        rows[index] = probability, np.array(bounds) / rate

    count = max(len(bounds) for _, bounds in rows.values())
    probability = np.full((len(rows), count, len(model.labels)), np.nan)
    seconds = np.full((len(rows), count, 2), np.nan)
    for row, (values, times) in enumerate(rows.values()):
        probability[row, : len(values)] = values
        seconds[row, : len(times)] = times
    coords = results.coordinates(clips, rows)
    coords["target"] = model.labels
    coords |= {"start": (("clip", "window"), seconds[..., 0]), "end": (("clip", "window"), seconds[..., 1])}
    coords["time"] = ("clip", "window"), seconds.mean(axis=-1)
    attrs = results.attributes(model, skipped, method="over_time", window=window, step=step)
    return xr.Dataset({"probability": (("clip", "window", "target"), probability)}, coords, attrs)


def _window_bounds(length, window, step) -> list[tuple[int, int]]:
    """Return start and end of each window in samples; a recording shorter than a window is one window."""
    if length <= window:
        return [(0, length)]
    starts = [*range(0, length - window, step), length - window]
    return [(start, start + window) for start in starts]


def _probabilities(model, waveform, bounds, batch) -> np.ndarray:
    """Return probabilities [window, target]; NaN for silent windows."""
    values = np.full((len(bounds), len(model.labels)), np.nan)
    not_silent = [index for index, (start, end) in enumerate(bounds) if np.ptp(waveform[start:end]) > 0]
    groups = [not_silent[first : first + batch] for first in range(0, len(not_silent), batch)]
    for group in tqdm(groups, "windows", leave=False, delay=2):
        waveforms = [waveform[slice(*bounds[index])] for index in group]
        logits = model.logits(torch.cat([model.tensor(samples) for samples in waveforms]))
        values[group] = model.scores(logits).double().cpu().numpy()
    return values
