"""What a clip sounds like in numbers, and how those numbers differ between emotions within a speaker."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import xarray as xr

from . import audio, statistics
from .names import EMOTIONS

FACTORS = {  # columns of audio.features_table: name, unit, unit of a difference
    "level_db": ("level", "dBFS", "dB"),
    "f0": ("F0", "Hz", "semitones"),
    "f0_range": ("F0 range", "semitones", "semitones"),
    "centroid": ("spectral centroid", "Hz", "Hz"),
    "zcr": ("zero crossings", "per second", "per second"),
    "rate": ("speech rate", "syllables/s", "syllables/s"),
    "speech_seconds": ("speech duration", "s", "s"),
}


def frames(waveform, sample_rate=audio.SAMPLE_RATE) -> xr.Dataset:
    """One clip, sample by sample and frame by frame.

    Returns
    -------
    Dataset
        ``waveform`` [sample]; ``speech`` (bool), ``f0`` (Hz, NaN unvoiced) and ``level`` (dBFS) [frame], on the
        encoders' frames. The coordinates `sample` and `frame` are seconds.
    """
    waveform = np.asarray(waveform, np.float32)
    hop, span = (round(n / audio.SAMPLE_RATE * sample_rate) for n in (audio.HOP, audio.SPAN))
    speech = audio.speech_mask(waveform, sample_rate, hop=hop, span=span)
    values = audio.features(torch.as_tensor(waveform), sample_rate, names=("rms", "f0"), hop=hop, span=span)
    return xr.Dataset(
        {
            "waveform": ("sample", waveform),
            "speech": ("frame", speech),
            "f0": ("frame", values["f0"].numpy()),
            "level": ("frame", 20 * np.log10(values["rms"].numpy() + 1e-6)),
        },
        {
            "sample": np.arange(len(waveform)) / sample_rate,
            "frame": audio.frame_times(len(speech), sample_rate, hop=hop, span=span),
        },
        {"sample_rate": sample_rate},
    )


def centred(table, clips) -> pd.DataFrame:
    """Each number less the mean of its speaker; F0 in semitones.

    Parameters
    ----------
    table : DataFrame
        Of `audio.features_table`, or other numbers indexed like `clips`.
    clips : DataFrame
        With the column `speaker`, indexed as `table` is.

    Raises
    ------
    ValueError
        The speaker of some clip is not known.
    """
    speaker = _column(clips, table, "speaker")
    values = table.astype(float)
    if "f0" in values:
        values["f0"] = 12 * np.log2(values["f0"])
    return values - values.groupby(speaker).transform("mean")


def eta_squared(table, clips, *, by="label", shuffles=200, seed=0) -> pd.DataFrame:
    """Share of the variance within speakers that the label explains, number by number.

    Returns
    -------
    DataFrame indexed like the columns of `table`
        ``eta_squared``, 0 to 1, and ``shuffled``, the 95th percentile of the same after the labels are shuffled
        within each speaker.
    """
    values, label = centred(table, clips), _column(clips, table, by)
    groups = label.groupby(_column(clips, table, "speaker").to_numpy())
    rng = np.random.default_rng(seed)

    def shares(labels):
        return [statistics.eta_squared(column, labels) for column in values.to_numpy().T]

    null = [shares(groups.transform(lambda x: rng.permutation(x))) for _ in range(shuffles)]
    return pd.DataFrame(
        {"eta_squared": shares(label), "shuffled": np.quantile(null, 0.95, axis=0)}, index=table.columns
    )


def cells(table, clips, *, by="label") -> xr.DataArray:
    """Mean of each speaker's clips of each label (of F0 the geometric mean).

    Returns
    -------
    DataArray [factor, label, speaker]
        NaN where a speaker has no such clip; `sex`, where known, beside `speaker`; the coordinates `title` and
        `unit` say what each factor is. Emotions are in their usual order.

    Raises
    ------
    ValueError
        `clips` lacks a speaker or a label, or no clip has one.
    """
    values = table[[name for name in FACTORS if name in table]].astype(float)
    if "f0" in values:
        values["f0"] = np.log2(values["f0"])
    keys = [_column(clips, table, name).astype(str) for name in (by, "speaker")]
    result = values.groupby([key.rename(n) for key, n in zip(keys, ("label", "speaker"))]).mean()
    result = result.to_xarray().to_dataarray("factor")
    labels = list(result["label"].values)
    order = [name for name in EMOTIONS if name in labels] + [name for name in labels if name not in EMOTIONS]
    result = _named(result.sel(label=order), 1)
    if "f0" in values:
        result.loc[{"factor": "f0"}] = 2 ** result.sel(factor="f0")
    if "sex" in clips:
        sex = clips.astype({"speaker": str}).drop_duplicates("speaker").set_index("speaker")["sex"]
        result["sex"] = "speaker", sex.reindex(result["speaker"].values).fillna("unknown").to_numpy(str)
    return result


def differences(cells, *, base=None, seed=0) -> xr.Dataset:
    """Each label against the base, paired within the speaker.

    Parameters
    ----------
    cells : DataArray [factor, label, speaker]
        Of `cells`.
    base : str, optional
        "neutral" unless told, or the first label where there is none.

    Returns
    -------
    Dataset
        ``difference`` [factor, label, speaker], in real units (F0 in semitones); over speakers ``mean``, ``low``
        and ``high`` (t interval, NaN under 8 speakers) and ``n``; ``p`` of the sign-flip test and ``q``, the same
        after Benjamini and Hochberg over all factors and labels. attrs: `base`.

    Raises
    ------
    KeyError
        No such label.
    ValueError
        There is only one label.
    """
    labels = [str(name) for name in cells["label"].values]
    base = base or ("neutral" if "neutral" in labels else labels[0])
    if base not in labels:
        raise KeyError(f"no clip is {base!r}: the labels are {', '.join(labels)}")
    if len(labels) < 2:
        raise ValueError(f"all clips are {base}: there is nothing to compare them with")
    logged = 12 * np.log2(cells.where(cells["factor"] == "f0"))
    values = logged.where(cells["factor"] == "f0", cells)
    difference = _named((values - values.sel(label=base, drop=True)).drop_sel(label=base), 2)
    difference = difference.transpose("factor", "label", "speaker")
    flat = difference.values.reshape(-1, difference.sizes["speaker"])
    p = np.array([statistics.sign_flip_test(row, seed=seed) for row in flat]).reshape(difference.shape[:2])
    result = statistics.over_speakers(difference).assign(difference=difference)
    result["p"], result["q"] = (("factor", "label"), p), (("factor", "label"), statistics.fdr(p))
    return result.assign_attrs(base=base)


def _named(data, unit):
    """Put title and unit beside each factor."""
    names = [str(name) for name in data["factor"].values]
    titles = {"title": 0, "unit": unit}
    return data.assign_coords({k: ("factor", [FACTORS[n][i] for n in names]) for k, i in titles.items()})


def _column(clips, table, name):
    """A column of the clips that `table` has rows for, complete."""
    column = clips.loc[table.index, name] if name in clips else pd.Series(dtype=object)
    if name not in clips or column.isna().any() or column.empty:
        missing = f"{column.isna().sum()} of {len(column)} clips lack it" if name in clips else "no such column"
        raise ValueError(f"the {name} of every clip is needed here ({missing}): leave out those without one")
    return column
