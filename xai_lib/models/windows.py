"""Long recordings: what a model says of each stretch of them, in windows that overlap."""

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from .. import audio, results
from ..corpora import as_clips


@torch.no_grad()
def over_time(model, recordings, sample_rate=None, *, window=4.0, step=1.0, batch=8) -> xr.Dataset:
    """Probability of each class in windows of a recording, such as a call or an interview.

    Memory does not grow with the recording, but for its samples (an hour at 16 kHz takes 230 MB).

    Parameters
    ----------
    recordings, sample_rate
        One or several, as in `corpora.as_clips`.
    window, step : float
        Seconds: how much the model hears at once, and how far one window begins after the one before.
    batch : int
        Windows of equal length that share a forward.

    Returns
    -------
    Dataset
        `probability` (`Model.scores`) [clip, window, target], NaN where a window is silent or the recording has ended,
        with the coordinates `start`, `end` and `time`, the middle (seconds) [clip, window]; what the corpus knows of each clip;
        and `attrs["skipped"]`. The last window ends with the recording, so it overlaps more with the one before.

    Raises
    ------
    ValueError
        A window that is longer than the model hears in one piece, or a step longer than the window, which would leave
        sound out.
    """
    model.require_trained()
    for name, seconds in (("window", window), ("step", step)):
        if not isinstance(seconds, (int, float, np.integer, np.floating)):
            raise ValueError(f"{name} is a number of seconds, not {seconds!r}")
    if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or batch < 1:
        raise ValueError(f"batch is a whole number from 1 up, not {batch!r}")
    if not 1 / model.sample_rate <= step <= window:
        raise ValueError(
            f"step lies between one sample and the window of {window:g} s, and is {step!r}: no sound may be left out"
        )
    if window > model.longest_seconds:
        raise ValueError(
            f"a window of {window:g} s is longer than the {model.longest_seconds:g} s that {model.name} hears in one piece"
        )
    clips = as_clips(recordings, sample_rate)
    rate, skipped, rows = model.sample_rate, {}, {}
    for index, waveform in audio.stream(clips, rate, shortest=model.span, skipped=skipped):
        places = _places(len(waveform), round(window * rate), round(step * rate))
        probability = _probabilities(model, waveform, places, batch)
        rows[index] = probability, np.array(places) / rate

    count = max(len(places) for _, places in rows.values())
    probability = np.full((len(rows), count, len(model.labels)), np.nan)
    seconds = np.full((len(rows), count, 2), np.nan)
    for place, (values, times) in enumerate(rows.values()):
        probability[place, : len(values)] = values
        seconds[place, : len(times)] = times
    coords = results.coordinates(clips, rows)
    coords["target"] = model.labels
    coords |= {"start": (("clip", "window"), seconds[..., 0]), "end": (("clip", "window"), seconds[..., 1])}
    coords["time"] = ("clip", "window"), seconds.mean(axis=-1)
    attrs = results.attributes(model, skipped, method="over_time", window=window, step=step)
    return xr.Dataset({"probability": (("clip", "window", "target"), probability)}, coords, attrs)


def _places(length, window, step) -> list[tuple[int, int]]:
    """Where each window begins and ends, in samples; a recording that is shorter than a window is one."""
    if length <= window:
        return [(0, length)]
    starts = [*range(0, length - window, step), length - window]
    return [(start, start + window) for start in starts]


def _probabilities(model, waveform, places, batch) -> np.ndarray:
    """Probabilities [window, target]; NaN of silent windows."""
    values = np.full((len(places), len(model.labels)), np.nan)
    heard = [place for place, (start, end) in enumerate(places) if np.ptp(waveform[start:end]) > 0]
    groups = [heard[first : first + batch] for first in range(0, len(heard), batch)]
    for group in tqdm(groups, "windows", leave=False, delay=2):
        waveforms = [waveform[slice(*places[place])] for place in group]
        logits = model.logits(torch.cat([model.tensor(samples) for samples in waveforms]))
        values[group] = model.scores(logits).double().cpu().numpy()
    return values
