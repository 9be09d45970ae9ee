"""Linear decoders of acoustics from hidden states: how loud, bright and high a layer takes a voice to be.

Read after an edit, they tell what it did to the acoustics that the layer holds, in each feature's own unit.
"""

import json
from functools import cache, partial

import numpy as np
import pandas as pd
import torch
import xarray as xr
from tqdm.auto import tqdm

from .. import audio, execution, hooks, results, statistics, targets
from ..corpora import as_clips, identity
from . import speaker_space

FEATURES = {  # and their units; semitones are above 100 Hz, full scale is that of the file
    "level": "dB",
    "envelope": "% of full scale",
    "zcr": "crossings/s",
    "centroid": "Hz",
    "f0": "semitones",
    "f0_delta": "semitones/s",
}
STRENGTHS = 10.0 ** np.arange(7)  # of the ridge penalty, neurons standardised
FOLDS = 3


def truth(model, waveform) -> np.ndarray:
    """The features of a waveform [time] at the model's frames, [feature, frame]; NaN in frames that do not count.

    `level` is the RMS in dB of full scale and `envelope` the largest sample in the frame, linear, so that it follows
    the loud frames and peaks. They, `zcr` and `centroid` count in frames of speech (in all, where none is found), `f0`
    in those that are voiced too. `f0_delta` is its slope from the frame before to the one after, all three voiced.
    """
    grid = {"hop": model.hop, "span": model.span}
    found = audio.features(audio.without_offset(torch.as_tensor(waveform)), model.sample_rate, **grid)
    rms, envelope, zcr, centroid, f0 = (found[name].cpu().double().numpy() for name in audio.FEATURES)
    speech = model.speech(waveform)
    speech |= ~speech.any()
    pitch = np.where(speech, 12 * np.log2(f0 / 100), np.nan)
    around = np.pad(pitch, 1, constant_values=np.nan)
    slope = np.where(np.isfinite(pitch), (around[2:] - around[:-2]) / (2 * model.frame_seconds), np.nan)
    features = [20 * np.log10(rms + 1e-6), 100 * envelope, model.sample_rate * zcr, centroid, pitch, slope]
    return np.where(speech, features, np.nan)


def measure(model, clips, *, sample_rate=None) -> xr.DataArray:
    """The true features of whole clips [clip, feature], means over the frames that count; of `f0_delta`, of its size."""
    clips = as_clips(clips, sample_rate)
    skipped, rows = {}, {}
    for index, waveform in model.stream(clips, skipped):
        rows[index] = _means(truth(model, waveform))
    coords = {**results.coordinates(clips, rows), "feature": [*FEATURES], "unit": ("feature", [*FEATURES.values()])}
    made = results.attributes(model, skipped, method="decoders.measure")
    return xr.DataArray(np.stack(list(rows.values())), coords, ("clip", "feature"), "features", made)


def fit(model, clips, *, frames=6000, seed=0, sample_rate=None) -> xr.Dataset:
    """Ridge regressions of the features of each frame on each layer's output, on training speakers.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    frames : int
        As many are drawn, the same number from each clip (one, at least), and kept in memory.

    Returns
    -------
    Dataset
        `weight` [layer, feature, neuron] and `bias` [layer, feature]; `strength` [layer, feature], the penalty on
        standardised neurons with which decoders did best in cross-validation over speakers; `mean` of the frames and
        `sd` between the means of clips [feature] (of `f0_delta`: of its size), and the coordinate `unit`.
        `shuffled_weight` and `shuffled_bias` are decoders of features that belong to other clips, for chance. NaN where
        no decoder could be fitted, as of F0 in whispers. attrs["speakers"]: who was heard, as JSON.

    Raises
    ------
    ValueError
        A clip has no speaker, or there are fewer than three.

    References
    ----------
    sklearn.linear_model.Ridge after StandardScaler, which each decoder equals; here the frames are summed up once for
    all strengths and folds.
    """
    clips = as_clips(clips, sample_rate)
    speaker_space.known(clips, speaker_space.FEWEST)
    skipped, quota, kept, means = {}, max(frames // len(clips), 1), {}, []
    for index, hidden, true in _read(model, clips, skipped):
        rng = np.random.default_rng(targets.key(seed, index, targets.SEED_DECODERS))
        speech = np.flatnonzero(np.isfinite(true[0]))
        drawn = rng.choice(speech, min(quota, len(speech)), replace=False)  # in random order
        kept[index] = hidden[:, drawn].cpu().numpy(), true[:, drawn].T
        means.append(_means(true))
    heard = speaker_space.known(clips.loc[list(kept)], speaker_space.FEWEST)
    # Clips are put in order by their place, speakers into folds by that at which they first come.
    order = np.random.default_rng(seed).permutation(len(kept))
    hidden, true = zip(*(list(kept.values())[i] for i in order))
    who = identity.unified(clips.loc[list(kept), "speaker"])
    fold = {name: i % FOLDS for i, name in enumerate(np.random.default_rng(seed).permutation(who.unique()))}
    split = np.repeat(who.map(fold).to_numpy()[order], list(map(len, true)))
    x, true = np.concatenate(hidden, axis=1), np.concatenate(true)
    both = np.concatenate([true, true], axis=1)
    for column in both.T[len(FEATURES) :]:  # clips and their frames lie in random order: it leaves nothing in common
        there = np.isfinite(column)
        column[there] = np.roll(column[there], there.sum() // 2)
    layers = [_ridge(at.astype(float), both, split) for at in tqdm(x, "layers", leave=False, delay=2)]
    weight, bias, strength = (np.stack(found) for found in zip(*layers))
    n, at = len(FEATURES), ("layer", "feature")
    return xr.Dataset(
        {
            "weight": ((*at, "neuron"), weight[:, :n]),
            "bias": (at, bias[:, :n]),
            "strength": (at, strength[:, :n]),
            "shuffled_weight": ((*at, "neuron"), weight[:, n:]),
            "shuffled_bias": (at, bias[:, n:]),
            "mean": ("feature", pd.DataFrame(true).mean()),
            "sd": ("feature", pd.DataFrame(means).std()),
        },
        {**results.axes(model.sites(), weight), "feature": [*FEATURES], "unit": ("feature", [*FEATURES.values()])},
        results.attributes(model, skipped, method="decoders", frames=len(true), seed=seed, speakers=json.dumps(heard)),
    )


def readers(model, fitted, waveform) -> dict:
    """For `execution.cascade_read` of this clip: {Site: [row, frame, neuron] to [row, feature]} at every layer.

    Means of what is decoded, over the frames that count in the waveform, whatever an edit makes of them; NaN where
    none does. Of `f0_delta` the mean size: how fast the pitch moves, since ups and downs cancel out.
    """
    speaker_space.check(model, fitted, "decoders.fit")
    counts = np.isfinite(truth(model, waveform)).astype(float)
    total = counts.sum(axis=1, keepdims=True)
    share = torch.as_tensor(counts / np.where(total, total, np.nan)).float().to(model.device)
    both = [torch.as_tensor(fitted[name].values).float().to(model.device) for name in ("weight", "bias")]
    return {hooks.Site(layer): partial(_decode, *at, share) for layer, at in enumerate(zip(*both))}


def carried(readers, clean):
    """A function from a change of the stream [1, frame, neuron] to [layer, feature], what it alone would move.

    That is what `readers` say of each layer of `clean`, {Site: [1, frame, neuron]}, with the change added, less what they
    say without. `clean` may be empty until the function is called.
    """
    weight, bias, share = map(torch.stack, zip(*(reader.args for reader in readers.values())))

    @cache
    def before():
        return torch.cat([clean[site] for site in readers]) @ weight.mT + bias[:, None]

    def read(change):
        moved = _sizes(before() + change @ weight.mT) - _sizes(before())
        return torch.einsum("ltf,lft->lf", moved, share)

    return read


def validity(model, clips, fitted, *, sample_rate=None) -> xr.Dataset:
    """R² of the decoders on unseen speakers, over the frames of each: it belongs beside every effect on them.

    Returns
    -------
    Dataset
        [layer, feature]: ``mean``, ``low``, ``high`` and ``n`` over speakers (`statistics.over_speakers`) of the R²
        against the speaker's own mean, so that to know the speaker counts for nothing, and below 0 is worse than that
        mean; ``speakers`` [speaker, ...], each one's. ``training`` is R² against the mean of the training frames, and
        ``shuffled`` the same of the decoders of other clips' features, which should be about 0; means over speakers.

    Raises
    ------
    ValueError
        A clip has no speaker, or one whom `fit` has heard; the decoders are of another model.
    """
    clips = as_clips(clips, sample_rate)
    speaker_space.check(model, fitted, "decoders.fit")
    speaker_space.known(clips, heard=json.loads(fitted.attrs["speakers"]))
    weight, bias = (np.stack([fitted[name], fitted[f"shuffled_{name}"]]) for name in ("weight", "bias"))
    weight, bias = torch.as_tensor(weight).mT, torch.as_tensor(bias)[:, :, None]
    skipped, rows, centre = {}, {}, fitted["mean"].values
    for index, hidden, true in _read(model, clips, skipped):
        counts, true = np.isfinite(true.T), np.nan_to_num(true.T - centre)
        decoded = (hidden.cpu().double() @ weight + bias).numpy() - centre  # [which, layer, frame, feature]
        errors = np.where(counts, decoded - true, 0)
        rows[index] = [(errors**2).sum(axis=2), counts.sum(axis=0), true.sum(axis=0), (true**2).sum(axis=0)]
    error, *rest = map(np.stack, zip(*rows.values()))
    data = {name: (("clip", "feature"), x) for name, x in zip(("n", "total", "square"), rest)}
    data = xr.Dataset({"error": (("clip", "which", "layer", "feature"), error), **data})
    data = data.assign_coords(fitted[["layer", "feature", "unit"]].coords | results.coordinates(clips, rows))
    sums = data.groupby("speaker").sum("clip", skipna=False)  # where there is no decoder, NaN
    own = sums["square"] - sums["total"] ** 2 / np.maximum(sums["n"], 1)
    one, training = (1 - sums["error"] / x.where(x > 1e-9 * sums["n"]) for x in (own, sums["square"]))
    more = {"speakers": one[:, 0], **dict(zip(("training", "shuffled"), training.mean("speaker")))}
    made = results.attributes(model, skipped, method="validity of decoders")
    return statistics.over_speakers(one[:, 0]).assign(more).assign_attrs(made)


@torch.no_grad()
def _read(model, clips, skipped):
    """Yield (index, hidden [layer, frame, neuron], true [feature, frame]) of each clip."""
    sites = model.sites()
    for index, waveform in model.stream(clips, skipped):
        with hooks.capture(model, sites) as seen:
            execution.prefix(model, model.tensor(waveform), model.n_layers)
        yield index, torch.stack([seen[site][0] for site in sites]), truth(model, waveform)


def _decode(weight, bias, share, hidden):
    """[row, frame, neuron] to [row, feature], `share` [feature, frame] being the weights of the frames."""
    return torch.einsum("rtf,ft->rf", _sizes(hidden @ weight.T + bias), share)


def _means(true):
    """Of the features [feature, frame] of a clip."""
    return _sizes(torch.as_tensor(true.T)).nanmean(dim=0).numpy()


def _sizes(features):
    """[..., feature], the last of which, `f0_delta`, loses its sign."""
    return torch.cat([features[..., :-1], features[..., -1:].abs()], dim=-1)


def _ridge(x, y, split):
    """Weight [column, neuron], bias and strength [column] from x [frame, neuron] and the columns of y, NaN left out."""
    weight = np.full((y.shape[1], x.shape[1]), np.nan)
    bias, strength = np.full((2, y.shape[1]), np.nan)
    masks, which = np.unique(np.isfinite(y), axis=1, return_inverse=True)
    for place, mask in enumerate(masks.T):
        columns, folds = np.flatnonzero(which == place), [mask & (split == fold) for fold in set(split[mask])]
        if len(folds) < 2:  # nothing to choose the strength by
            continue
        centre, scale = x[mask].mean(axis=0), x[mask].std(axis=0)
        scale[scale == 0] = 1
        seen, true = np.insert((x - centre) / scale, 0, 1, axis=1), y[:, columns]
        z, error = np.hstack([seen, true]), 0
        moments = [z[held].T @ z[held] for held in folds]
        for held, own in zip(folds, moments):
            tried = seen[held] @ _solve(sum(moments) - own, len(scale))
            error = error + np.square(tried - true[held]).sum(axis=1)
        best = error.argmin(axis=0)
        found = _solve(sum(moments), len(scale))[best, :, range(len(columns))]
        weight[columns], strength[columns] = found[:, 1:] / scale, STRENGTHS[best]
        bias[columns] = found[:, 0] - weight[columns] @ centre
    return weight, bias, strength


def _solve(moments, width):
    """Bias and weights [strength, 1 + neuron, column], from sums of products of (1, neurons, columns)."""
    mean = moments[0, 1:] / moments[0, 0]
    spread = moments[1:, 1:] - np.outer(mean, moments[0, 1:])
    penalised = spread[:width, :width] + STRENGTHS[:, None, None] * np.eye(width)
    weight = np.linalg.solve(penalised, spread[None, :width, width:])
    return np.insert(weight, 0, mean[width:] - mean[:width] @ weight, axis=1)
