"""What a clip sounds like in numbers, and how those numbers differ between emotions within a speaker."""

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import audio, statistics
from .filenames import ordered

FACTORS = {  # columns of corpora.features_table: name, unit, unit of a difference
    "level_db": ("level", "dBFS", "dB"),
    "f0": ("F0", "Hz", "semitones"),
    "f0_range": ("F0 range", "semitones", "semitones"),
    "centroid": ("spectral centroid", "Hz", "Hz"),
    "zcr": ("zero crossings", "per second", "per second"),
    "rate": ("speech rate", "syllables/s", "syllables/s"),
}


def frames(waveform, sample_rate=audio.SAMPLE_RATE) -> xr.Dataset:
    """One clip: ``waveform`` [sample]; ``speech`` (bool) and ``f0`` (Hz, NaN unvoiced) [frame], the encoders'.

    The coordinates `sample` and `frame` are seconds.
    """
    waveform = np.asarray(waveform, np.float32)
    grid = audio.grid(sample_rate)
    speech = audio.speech_mask(waveform, sample_rate, **grid)
    centred = torch.from_numpy(audio.without_offset(waveform))
    f0 = audio.features(centred, sample_rate, names=("f0",), **grid)["f0"].numpy()
    at = audio.frame_times(len(speech), sample_rate, **grid)
    return xr.Dataset(
        {"waveform": ("sample", waveform), "speech": ("frame", speech), "f0": ("frame", f0)},
        {"sample": np.arange(len(waveform)) / sample_rate, "frame": at},
        {"sample_rate": sample_rate},
    )


def centred(table, clips) -> pd.DataFrame:
    """Each number (of `corpora.features_table`, or others) less its speaker's mean; F0 in semitones.

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
    """Share of the variance within speakers that the label explains: a row for each column of `table`.

    ``eta_squared`` is 0 to 1, ``shuffled`` the 95th percentile of the same after the labels are shuffled within each
    speaker.
    """
    values, label = centred(table, clips), _column(clips, table, by)
    groups = label.groupby(_column(clips, table, "speaker").to_numpy())
    rng = np.random.default_rng(seed)
    null = [statistics.eta_squared(values, groups.transform(rng.permutation)) for _ in range(shuffles)]
    columns = {"eta_squared": statistics.eta_squared(values, label), "shuffled": np.quantile(null, 0.95, axis=0)}
    return pd.DataFrame(columns, index=table.columns)


def cells(table, clips, *, by="label") -> xr.DataArray:
    """Mean of each speaker's clips of each label (of F0 the geometric mean): [factor, label, speaker].

    NaN where a speaker has no such clip. `sex`, where known, is beside `speaker`; the coordinates `title` and `unit`
    say what each factor is. Emotions are in their usual order. ValueError where a clip lacks its speaker or label.
    """
    values = table[[name for name in FACTORS if name in table]].astype(float)
    if "f0" in values:
        values["f0"] = np.log2(values["f0"])
    label, speaker = (_column(clips, table, name).astype(str) for name in (by, "speaker"))
    means = values.groupby([label.rename("label"), speaker]).mean()
    if "f0" in values:
        means["f0"] = 2 ** means["f0"]
    result = means.to_xarray().to_dataarray("factor")
    result = _named(result.sel(label=ordered(result["label"].values)), unit=1)
    if "sex" in clips:
        sex = clips.astype({"speaker": str}).drop_duplicates("speaker").set_index("speaker")["sex"]
        result["sex"] = "speaker", sex.reindex(result["speaker"].values).fillna("unknown").to_numpy(str)
    return result


def differences(cells, *, base=None, seed=0) -> xr.Dataset:
    """Each label of `cells` [factor, label, speaker] against the base, paired within the speaker.

    The base is "neutral" unless told, or the first label where there is none.

    Returns
    -------
    Dataset
        ``difference`` [factor, label, speaker], in real units (F0 in semitones); over speakers ``mean``, ``low`` and
        ``high`` (t interval, NaN under 8 speakers), ``n``, and ``d``, Cohen's d of paired differences; ``p`` of the
        sign-flip test and ``q``, the same after Benjamini and Hochberg over all factors and labels. attrs: `base`.

    Raises
    ------
    KeyError, ValueError
        No such label; there is only one label, or no speaker has both the base and another.
    """
    labels = [str(name) for name in cells["label"].values]
    base = base or ("neutral" if "neutral" in labels else labels[0])
    if base not in labels:
        raise KeyError(f"no clip is {base!r}: the labels are {', '.join(labels)}")
    if len(labels) < 2:
        raise ValueError(f"all clips are {base}: there is nothing to compare them with")
    pitch = cells["factor"] == "f0"
    values = xr.where(pitch, 12 * np.log2(cells.where(pitch)), cells)
    difference = (values - values.sel(label=base, drop=True)).drop_sel(label=base)
    difference = _named(difference.transpose("factor", "label", "speaker"), unit=2)
    if difference.isnull().all():
        raise ValueError(f"no speaker has clips of both {base} and another label: none can be compared")
    p = statistics.sign_flip_test(difference.values, axis=2, seed=seed)
    result = statistics.over_speakers(difference).assign(difference=difference)
    tests = {"d": statistics.cohens_d(difference.values, axis=2), "p": p, "q": statistics.fdr(p)}
    return result.assign({k: (("factor", "label"), v) for k, v in tests.items()}).assign_attrs(base=base)


def _named(data, *, unit):
    """Put title and unit beside each factor."""
    titles, units = zip(*((FACTORS[str(name)][0], FACTORS[str(name)][unit]) for name in data["factor"].values))
    return data.assign_coords(title=("factor", list(titles)), unit=("factor", list(units)))


def _column(clips, table, name):
    """A column of the clips that `table` has rows for, complete."""
    if name not in clips:
        raise ValueError(f"the clips have no column {name!r}, which is needed here: add it")
    column = clips.loc[table.index, name]
    if column.isna().any():
        raise ValueError(f"every clip needs a {name} here: leave out the {column.isna().sum()} without one")
    return column
