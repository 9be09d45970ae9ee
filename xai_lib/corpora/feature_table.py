"""Tables of acoustic features: a row for each clip."""

import numpy as np
import pandas as pd
from scipy import ndimage, signal

from ..audio import HOP, SAMPLE_RATE, features, rhythm, speech_mask, stream, without_offset
from .loading import as_clips


def features_table(clips, *, skipped=None, sample_rate=None) -> pd.DataFrame:
    """Compute acoustic features of each clip over its speech frames, a row per clip.

    Clips that cannot be used are skipped with a warning and listed in `attrs["skipped"]` {index: reason}; they are
    added to the dict `skipped`, too.

    Returns
    -------
    DataFrame indexed like `clips`, without skipped ones
        ``level_db`` (dBFS of the mean power), ``f0`` (median, Hz), ``f0_range`` (5th to 95th percentile, semitones),
        ``centroid`` (median, Hz), ``zcr`` (median, crossings per second), ``speech_seconds``, and ``rate``
        (syllables per second of speech: level peaks with a prominence of 2 dB, after de Jong and Wempe 2009). Over the
        whole clip, pauses included: ``rhythm`` (`rhythm`) and ``steadiness`` (minus the SD of the frames' level in dB,
        levels floored at 50 dB below their 95th percentile).
    """
    clips = as_clips(clips, sample_rate)
    rows = {}
    skipped = {} if skipped is None else skipped
    for index, waveform in stream(clips, skipped=skipped):
        waveform = without_offset(waveform)
        speech = speech_mask(waveform)
        values = {name: value.numpy().astype(float) for name, value in features(waveform).items()}
        if not speech.any():
            rows[index] = {"speech_seconds": 0.0}
            continue
        level = 20 * np.log10(values["rms"] + 1e-6)
        peaks = signal.find_peaks(ndimage.gaussian_filter1d(level, 1.5), prominence=2)[0]
        f0 = values["f0"][speech & np.isfinite(values["f0"])]
        seconds = speech.sum() * HOP / SAMPLE_RATE
        rows[index] = {
            "level_db": 10 * np.log10(np.mean(values["rms"][speech] ** 2)),
            "f0": np.median(f0) if len(f0) else np.nan,
            "f0_range": 12 * np.log2(np.divide(*np.percentile(f0, [95, 5]))) if len(f0) else np.nan,
            "centroid": np.nanmedian(values["centroid"][speech]),
            "zcr": np.median(values["zcr"][speech]) * SAMPLE_RATE,
            "speech_seconds": seconds,
            "rate": speech[peaks].sum() / seconds,
            "rhythm": rhythm(values["rms"]),
            "steadiness": -np.maximum(level, np.percentile(level, 95) - 50).std(),
        }
    columns = ["level_db", "f0", "f0_range", "centroid", "zcr", "speech_seconds", "rate", "rhythm", "steadiness"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis(clips.index.name)
    table.attrs["skipped"] = dict(skipped)
    return table
