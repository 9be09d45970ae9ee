"""Acoustic features of clips, and their differences between emotions within speakers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import audio, statistics
from .filenames import ordered


class Factor(NamedTuple):
    """What a column of `corpora.features_table` is called, and its units."""

    title: str
    unit: str
    difference_unit: str


FACTORS = {
    "level_db": Factor("level", "dBFS", "dB"),
    "f0": Factor("F0", "Hz", "semitones"),
    "f0_range": Factor("F0 range", "semitones", "semitones"),
    "centroid": Factor("spectral centroid", "Hz", "Hz"),
    "zcr": Factor("zero crossings", "per second", "per second"),
    "rate": Factor("speech rate", "syllables/s", "syllables/s"),
}


def frames(waveform: np.ndarray, sample_rate: int = audio.SAMPLE_RATE) -> xr.Dataset:
    """Compute the tracks of one clip: ``waveform`` [sample]; ``speech`` (bool) and ``f0`` (Hz, NaN unvoiced) [frame].

    Frames are those of the encoders. The coordinates `sample` and `frame` are seconds.
    """
    waveform = np.asarray(waveform, np.float32)
    grid = audio.grid(sample_rate)
    speech = audio.speech_mask(waveform, sample_rate, **grid)
    samples = torch.from_numpy(audio.without_offset(waveform))
    f0 = audio.features(samples, sample_rate, names=("f0",), **grid)["f0"].numpy()
    times = audio.frame_times(len(speech), sample_rate, **grid)
    return xr.Dataset(
        {"waveform": ("sample", waveform), "speech": ("frame", speech), "f0": ("frame", f0)},
        {"sample": np.arange(len(waveform)) / sample_rate, "frame": times},
        {"sample_rate": sample_rate},
    )


def centred(table: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """Subtract the speaker's mean from each column of `table` (`corpora.features_table`, or others); F0 in semitones.

    Raises
    ------
    ValueError
        A clip has no speaker.
    """
    speaker = _column(clips, table, "speaker")
    values = table.astype(float)
    if "f0" in values:
        values["f0"] = 12 * np.log2(values["f0"])
    return values - values.groupby(speaker).transform("mean")


def eta_squared(table, clips, *, by="label", shuffles=200, seed=0) -> pd.DataFrame:
    """Compute the share of the variance within speakers that the label explains: a row for each column of `table`.

    ``eta_squared`` is 0 to 1, ``shuffled`` the 95th percentile of its null distribution, for which labels are shuffled
    within speakers.
    """
    values = centred(table, clips)
    label = _column(clips, table, by).to_numpy()
    speaker = _column(clips, table, "speaker")
    speaker_rows = list(speaker.groupby(speaker.to_numpy()).indices.values())
    row_orders = statistics.restricted_permutations(speaker_rows, shuffles, seed)
    null_distribution = [statistics.eta_squared(values, label[order]) for order in row_orders]
    columns = {
        "eta_squared": statistics.eta_squared(values, label),
        "shuffled": np.quantile(null_distribution, 0.95, axis=0),
    }
    return pd.DataFrame(columns, index=table.columns)


def cells(table: pd.DataFrame, clips: pd.DataFrame, *, by: str = "label") -> xr.DataArray:
    """Compute the mean of each speaker's clips of each label (for F0 the geometric mean): [factor, label, speaker].

    NaN where a speaker has no such clip. `sex`, where known, is a coordinate along `speaker`; the coordinates `title`
    and `unit` name each factor. Emotions are in their usual order. Raises ValueError where a clip has no speaker or
    label.
    """
    values = table[[name for name in FACTORS if name in table]].astype(float)
    if "f0" in values:
        values["f0"] = np.log2(values["f0"])
    label = _column(clips, table, by).astype(str).rename("label")
    speaker = _column(clips, table, "speaker").astype(str)
    means = values.groupby([label, speaker]).mean()
    if "f0" in values:
        means["f0"] = 2 ** means["f0"]
    result = means.to_xarray().to_dataarray("factor")
    result = result.sel(label=ordered(result["label"].values))
    result = _with_titles(result, "unit")
    if "sex" in clips:
        sex = clips.astype({"speaker": str}).drop_duplicates("speaker").set_index("speaker")["sex"]
        result["sex"] = "speaker", sex.reindex(result["speaker"].values).fillna("unknown").to_numpy(str)
    return result


def differences(cells: xr.DataArray, *, base: str | None = None, seed: int = 0) -> xr.Dataset:
    """Compare each label of `cells` [factor, label, speaker] with the base, paired within speakers.

    The default base is "neutral", or the first label where no label is "neutral".

    Returns
    -------
    Dataset
        ``difference`` [factor, label, speaker], in real units (F0 in semitones); over speakers ``mean``, ``low`` and
        ``high`` (t interval, NaN under 8 speakers), ``n``, and ``d``, Cohen's d of paired differences; ``p`` of the
        sign-flip test and ``q``, corrected after Benjamini and Hochberg over all factors and labels. attrs: `base`.

    Raises
    ------
    KeyError, ValueError
        The base is not a label; there is only one label, or no speaker has both the base and another.
    """
    labels = [str(name) for name in cells["label"].values]
    if not base:
        base = "neutral" if "neutral" in labels else labels[0]
    if base not in labels:
        raise KeyError(f"no clip has the label {base!r}: the labels are {', '.join(labels)}")
    if len(labels) < 2:
        raise ValueError(f"all clips have the label {base}: add clips of another label")
    is_pitch = cells["factor"] == "f0"
    values = xr.where(is_pitch, 12 * np.log2(cells.where(is_pitch)), cells)
    difference = (values - values.sel(label=base, drop=True)).drop_sel(label=base)
    difference = _with_titles(difference.transpose("factor", "label", "speaker"), "difference_unit")
    if difference.isnull().all():
        raise ValueError(
            f"no speaker has clips of both {base} and another label: add such clips, or choose another base"
        )
    p = statistics.sign_flip_test(difference.values, axis=2, seed=seed)
    result = statistics.over_speakers(difference).assign(difference=difference)
    dims = ("factor", "label")
    result["d"] = dims, statistics.cohens_d(difference.values, axis=2)
    result["p"] = dims, p
    result["q"] = dims, statistics.fdr(p)
    return result.assign_attrs(base=base)


def _with_titles(data, unit) -> xr.DataArray:
    """Add the title and a unit of each factor as coordinates; `unit` is "unit" or "difference_unit" of `Factor`."""
    factors = [FACTORS[str(name)] for name in data["factor"].values]
    titles = [factor.title for factor in factors]
    units = [getattr(factor, unit) for factor in factors]
    return data.assign_coords(title=("factor", titles), unit=("factor", units))


def _column(clips, table, name) -> pd.Series:
    """Return a column of the clips that are in `table`; ValueError where a value is missing."""
    if name not in clips:
        raise ValueError(f"the clips have no column {name!r}, which is required: add it")
    column = clips.loc[table.index, name]
    if column.isna().any():
        raise ValueError(f"every clip needs a {name}: drop the {column.isna().sum()} clips without one")
    return column
