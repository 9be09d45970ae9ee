"""Listen to the sample corpus with numbers: measure every clip and set what is heard against what was set."""

from __future__ import annotations

from pathlib import Path

import joblib
import librosa
import numpy as np
import pandas as pd
import prosody
import soundfile
from scipy import signal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

HOP, FRAME = 160, 1024


def measure(path, phonemes):
    """What can be heard in one clip, under the names of `prosody.FACTORS` (f0 in semitones over 100 Hz).

    Nothing here sees the factors; `phonemes` (rows of phonemes.csv) only gives the number of phonemes.
    """
    x, rate = soundfile.read(path)
    low = signal.sosfiltfilt(signal.butter(4, 900, fs=rate, output="sos"), x)  # keeps pyin to the harmonics
    f0, _, _ = librosa.pyin(low, fmin=55, fmax=700, sr=rate, frame_length=FRAME, hop_length=HOP, fill_na=np.nan)
    db = 10 * np.log10(librosa.feature.rms(y=x, frame_length=320, hop_length=HOP)[0] ** 2 + 1e-12)
    active = db > db.max() - 30
    voiced = np.isfinite(f0) & active
    if not voiced.any():
        raise ValueError(f"no voiced frame found in {path}")
    semitones = 12 * np.log2(f0[voiced] / 100)
    first, last = np.flatnonzero(active)[[0, -1]]
    quiet = np.flatnonzero(active[first : last + 1])
    spectrum = np.abs(librosa.stft(x, n_fft=512, hop_length=HOP))[:, active] ** 2
    frequency = np.fft.rfftfreq(512, 1 / rate)
    band = (frequency > 200) & (frequency < 5000)
    tilt = np.polyfit(np.log2(frequency[band]), 10 * np.log10(spectrum[band].mean(axis=1)), 1)[0]
    seconds = (last - first) * HOP / rate
    pause = max(np.diff(quiet).max() - 1, 0) * HOP / rate
    return {
        "f0_semitones": np.median(semitones),
        "f0_range_semitones": np.subtract(*np.percentile(semitones, [95, 5])),
        "rate": len(phonemes) / (seconds - pause),
        "level_db": 10 * np.log10(np.mean(10 ** (db[active] / 10))),
        "tilt_db_per_octave": tilt,
        "breathiness": _noise(x, f0, voiced, rate),
        "jitter_percent": _jitter(x, f0, voiced, rate),
        "pause_seconds": pause,
        "final_rise": np.median(semitones[-8:]) - np.median(semitones),
        "voiced_share": voiced.sum() / active.sum(),
        "peak": np.abs(x).max(),
        "seconds": len(x) / rate,
    }


def _noise(x, f0, voiced, rate):
    """Noise share, 1.5-4 kHz: 1 - autocorrelation at the pitch period, median over voiced frames."""
    y = signal.sosfiltfilt(signal.butter(4, (1500, 4000), "band", fs=rate, output="sos"), x)
    y, rate, hop = signal.resample_poly(y, 4, 1), 4 * rate, 4 * HOP  # a quarter of a sample matters at 4 kHz
    found = []
    for n in np.flatnonzero(voiced):
        lag = rate / f0[n]
        start, length = int(n * hop - lag), int(lag)
        shifts = np.arange(int(lag * 0.95), int(lag * 1.05) + 2)
        if start < 0 or start + shifts[-1] + length > len(y):
            continue
        piece = y[start : start + length]
        others = np.lib.stride_tricks.sliding_window_view(y[start + shifts[0] : start + shifts[-1] + length], length)
        found.append(1 - np.max(others @ piece / (np.linalg.norm(others, axis=1) * np.linalg.norm(piece) + 1e-20)))
    return np.median(found)


def _jitter(x, f0, voiced, rate):
    """Median second difference of pitch periods in percent (so that glides do not count)."""
    middle = np.median(f0[voiced])
    low = signal.sosfiltfilt(signal.butter(2, (middle / 2, middle * 1.5), "band", fs=rate, output="sos"), x)
    i = np.flatnonzero((low[:-1] < 0) & (low[1:] >= 0))
    times = (i - low[i] / (low[i + 1] - low[i])) / rate
    inside = voiced[np.clip((times * rate / HOP).round().astype(int), 0, len(voiced) - 1)]
    ratio = np.abs(np.diff(np.log(np.diff(times)), 2))[inside[:-3] & inside[1:-2] & inside[2:-1] & inside[3:]]
    return 100 * np.median(ratio)


def measure_all(folder, jobs=4):
    """`measure` for every clip of factors.csv, a table indexed like it."""
    table, phonemes = pd.read_csv(folder / "factors.csv"), pd.read_csv(folder / "phonemes.csv")
    parts = dict(tuple(phonemes.groupby("file")))
    work = (joblib.delayed(measure)(folder / file, parts[file]) for file in table.file)
    return pd.DataFrame(tqdm(joblib.Parallel(jobs, return_as="generator")(work), total=len(table), unit="clip"))


def variances(table, columns=prosody.FACTORS):
    """Standard deviation within and between emotions, and eta squared, per factor."""
    rows = {}
    for name in columns:
        total = table[name].var(ddof=0)
        within = (table[name] - table.groupby("emotion")[name].transform("mean")).var(ddof=0)
        rows[name] = {"within": within**0.5, "between": (total - within) ** 0.5, "eta2": 1 - within / total}
    return pd.DataFrame(rows).T


def recognition(table, values):
    """UAR of a linear discriminant on speaker-centred values: training voices to held-out voices."""
    centred = values - values.groupby(table.actor).transform("mean")
    train = table.split == "train"
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis()).fit(centred[train], table.emotion[train])
    said = model.predict(centred[~train])
    confusion = (
        pd.crosstab(table.emotion[~train], said)
        .reindex(prosody.EMOTIONS)
        .reindex(columns=prosody.EMOTIONS, fill_value=0)
    )
    confusion = confusion.reindex(index=prosody.EMOTIONS, columns=prosody.EMOTIONS, fill_value=0)
    return recall_score(table.emotion[~train], said, average="macro"), confusion


def show(folder, jobs=4):
    """Print the tables of the data card."""
    folder = Path(folder)
    table, heard = pd.read_csv(folder / "factors.csv"), measure_all(folder, jobs)
    main, names = table.subset == "main", list(prosody.FACTORS)
    result = variances(table[main])
    result["eta2_heard"] = variances(
        table[main].drop(columns=names).join(heard[names] - heard[names].groupby(table.actor[main]).transform("mean"))
    )["eta2"]
    inside = [
        part - part.groupby(table.actor[main]).transform("mean")
        for part in (table.loc[main, names], heard.loc[main, names])
    ]
    result["r_within_voice"] = inside[0].corrwith(inside[1])
    one = {}
    for name in names:
        rows = (table.subset == "one_factor") & ((table.varied == name) | table.varied.isna())
        pair = [
            part - part.groupby(table.actor[rows]).transform("mean")
            for part in (table.loc[rows, name], heard.loc[rows, name])
        ]
        one[name] = pair[0].corr(pair[1])
    result["r_one_factor"] = pd.Series(one)
    print(result.round(3).to_string())
    print("\nF0 median by voice (Hz), neutral:")
    hertz = 100 * 2 ** (heard.f0_semitones / 12)
    neutral = main & (table.emotion == "neutral")
    print(hertz[neutral].groupby([table.sex[neutral], table.actor[neutral]]).median().round(0).unstack(0).to_string())
    print("\nF0 median, all clips:", hertz[main].groupby(table.sex[main]).median().round(0).to_dict())
    for title, values in (("set", table.loc[main, names]), ("heard", heard.loc[main, names])):
        score, confusion = recognition(table[main], values)
        print(f"\nUAR on unseen voices from the factors {title}: {score:.3f}\n{confusion.to_string()}")
    print(heard[["peak", "seconds", "voiced_share"]].describe().round(3).to_string())
