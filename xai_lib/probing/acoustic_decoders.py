"""Linear decoders of acoustic features from hidden states: how loud, bright and high a voice is according to a layer.

Read after an edit, they measure its effect on the acoustics that the layer encodes, in each feature's own unit.
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
    """Compute the features of a waveform [time] at the model's frames, [feature, frame]; NaN in frames without a value.

    `level` is the RMS in dB of full scale and `envelope` the largest sample in the frame, linear, so that it follows
    the loud frames and peaks. They, `zcr` and `centroid` are defined in frames of speech (in all, where none is found),
    `f0` in those that are voiced too. `f0_delta` is its slope from the frame before to the one after, all three voiced.
    """
    grid = {"hop": model.hop, "span": model.span}
    features = audio.features(audio.without_offset(torch.as_tensor(waveform)), model.sample_rate, **grid)
    rms, envelope, zcr, centroid, f0 = (features[name].cpu().double().numpy() for name in audio.FEATURES)
    speech = model.speech(waveform)
    speech |= ~speech.any()
    pitch = np.where(speech, 12 * np.log2(f0 / 100), np.nan)
    padded = np.pad(pitch, 1, constant_values=np.nan)
    slope = np.where(np.isfinite(pitch), (padded[2:] - padded[:-2]) / (2 * model.frame_seconds), np.nan)
    values = [20 * np.log10(rms + 1e-6), 100 * envelope, model.sample_rate * zcr, centroid, pitch, slope]
    return np.where(speech, values, np.nan)


def measure(model, clips, *, sample_rate=None) -> xr.DataArray:
    """Compute the true features of whole clips [clip, feature], as means over the frames that have a value.

    The mean of `f0_delta` is that of its magnitude.
    """
    clips = as_clips(clips, sample_rate)
    skipped, rows = {}, {}
    for index, waveform in model.stream(clips, skipped):
        rows[index] = _means(truth(model, waveform))
    coords = {**results.coordinates(clips, rows), "feature": [*FEATURES], "unit": ("feature", [*FEATURES.values()])}
    attributes = results.attributes(model, skipped, method="decoders.measure")
    return xr.DataArray(np.stack(list(rows.values())), coords, ("clip", "feature"), "features", attributes)


def fit(model, clips, *, frames=6000, seed=0, sample_rate=None) -> xr.Dataset:
    """Fit ridge regressions of the features of each frame on each layer's output, on training speakers.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    frames : int
        Number of frames that are drawn, the same from each clip (at least one), and kept in memory.

    Returns
    -------
    Dataset
        `weight` [layer, feature, neuron] and `bias` [layer, feature]; `strength` [layer, feature], the penalty on
        standardised neurons with which decoders did best in cross-validation over speakers; `mean` of the frames and
        `sd` between the means of clips [feature] (for `f0_delta`: of its magnitude), and the coordinate `unit`.
        `shuffled_weight` and `shuffled_bias` are decoders of features that belong to other clips, for the chance level.
        NaN where no decoder could be fitted, such as F0 in whispers. attrs["speakers"]: the training speakers, as JSON.

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
    speaker_space.speaker_names(clips, speaker_space.MIN_TRAIN_SPEAKERS)
    skipped, quota, samples, means = {}, max(frames // len(clips), 1), {}, []
    for index, hidden, true in _read(model, clips, skipped):
        rng = np.random.default_rng(targets.key(seed, index, targets.SEED_DECODERS))
        speech = np.flatnonzero(np.isfinite(true[0]))
        drawn = rng.choice(speech, min(quota, len(speech)), replace=False)  # in random order
        samples[index] = hidden[:, drawn].cpu().numpy(), true[:, drawn].T
        means.append(_means(true))
    train_speakers = speaker_space.speaker_names(clips.loc[list(samples)], speaker_space.MIN_TRAIN_SPEAKERS)
    # The order of clips depends on their positions only, the fold of a speaker on that of the speaker's first clip.
    order = np.random.default_rng(seed).permutation(len(samples))
    hidden, true = zip(*(list(samples.values())[i] for i in order))
    speakers = identity.unify_spelling(clips.loc[list(samples), "speaker"])
    fold = {name: i % FOLDS for i, name in enumerate(np.random.default_rng(seed).permutation(speakers.unique()))}
    split = np.repeat(speakers.map(fold).to_numpy()[order], list(map(len, true)))
    x, true = np.concatenate(hidden, axis=1), np.concatenate(true)
    true_and_shuffled = np.concatenate([true, true], axis=1)
    # Clips and their frames are in random order: rolled by half, the features share nothing with the frames.
    for column in true_and_shuffled.T[len(FEATURES) :]:
        finite = np.isfinite(column)
        column[finite] = np.roll(column[finite], finite.sum() // 2)
    layers = [
        _ridge(layer.astype(float), true_and_shuffled, split) for layer in tqdm(x, "layers", leave=False, delay=2)
    ]
    weight, bias, strength = (np.stack(arrays) for arrays in zip(*layers))
    n, dims = len(FEATURES), ("layer", "feature")
    return xr.Dataset(
        {
            "weight": ((*dims, "neuron"), weight[:, :n]),
            "bias": (dims, bias[:, :n]),
            "strength": (dims, strength[:, :n]),
            "shuffled_weight": ((*dims, "neuron"), weight[:, n:]),
            "shuffled_bias": (dims, bias[:, n:]),
            "mean": ("feature", pd.DataFrame(true).mean()),
            "sd": ("feature", pd.DataFrame(means).std()),
        },
        {**results.axes(model.sites(), weight), "feature": [*FEATURES], "unit": ("feature", [*FEATURES.values()])},
        results.attributes(
            model, skipped, method="decoders", frames=len(true), seed=seed, speakers=json.dumps(train_speakers)
        ),
    )


def readout_functions(model, fitted, waveform) -> dict:
    """Return readouts for `execution.cascade_read` of this clip: {Site: [row, frame, neuron] to [row, feature]}.

    At every layer, means of what is decoded over the frames that have a value in the waveform, regardless of what an
    edit does to them; NaN where no frame has one. Of `f0_delta` the mean magnitude: how fast the pitch moves, since
    rises and falls cancel out.
    """
    speaker_space.check(model, fitted, "acoustic_decoders.fit")
    counts = np.isfinite(truth(model, waveform)).astype(float)
    total = counts.sum(axis=1, keepdims=True)
    share = torch.as_tensor(counts / np.where(total, total, np.nan)).float().to(model.device)
    parameters = [torch.as_tensor(fitted[name].values).float().to(model.device) for name in ("weight", "bias")]
    return {
        hooks.Site(layer): partial(_decode, *weight_and_bias, share)
        for layer, weight_and_bias in enumerate(zip(*parameters))
    }


def direct_effect(readout_functions, clean):
    """Return a function from a change of the stream [1, frame, neuron] to its direct effect [layer, feature].

    That is what is read at each layer of `clean`, {Site: [1, frame, neuron]}, with the change added, minus what is read
    without. `clean` may be empty until the function is called.
    """
    weight, bias, share = map(torch.stack, zip(*(reader.args for reader in readout_functions.values())))

    @cache
    def before():
        return torch.cat([clean[site] for site in readout_functions]) @ weight.mT + bias[:, None]

    def read(change):
        difference = _with_slope_magnitude(before() + change @ weight.mT) - _with_slope_magnitude(before())
        return torch.einsum("ltf,lft->lf", difference, share)

    return read


def validity(model, clips, fitted, *, sample_rate=None) -> xr.Dataset:
    """Compute R² of the decoders on unseen speakers, over the frames of each: report it with every effect on them.

    Returns
    -------
    Dataset
        [layer, feature]: ``mean``, ``low``, ``high`` and ``n`` over speakers (`statistics.over_speakers`) of the R²
        against the speaker's own mean, so that recognising the speaker counts for nothing, and below 0 is worse than
        that mean; ``speakers`` [speaker, ...], that of each. ``training`` is R² against the mean of the training
        frames, and ``shuffled`` the same of the decoders of other clips' features, whose chance level is about 0; means
        over speakers.

    Raises
    ------
    ValueError
        A clip has no speaker, or its speaker is a training speaker of `fit`; the decoders are of another model.
    """
    clips = as_clips(clips, sample_rate)
    speaker_space.check(model, fitted, "acoustic_decoders.fit")
    speaker_space.speaker_names(clips, train_speakers=json.loads(fitted.attrs["speakers"]))
    weight, bias = (np.stack([fitted[name], fitted[f"shuffled_{name}"]]) for name in ("weight", "bias"))
    weight, bias = torch.as_tensor(weight).mT, torch.as_tensor(bias)[:, :, None]
    skipped, rows, centre = {}, {}, fitted["mean"].values
    for index, hidden, true in _read(model, clips, skipped):
        counts, true = np.isfinite(true.T), np.nan_to_num(true.T - centre)
        decoded = (hidden.cpu().double() @ weight + bias).numpy() - centre  # [which, layer, frame, feature]
        errors = np.where(counts, decoded - true, 0)
        rows[index] = [(errors**2).sum(axis=2), counts.sum(axis=0), true.sum(axis=0), (true**2).sum(axis=0)]
    error, *frame_sums = map(np.stack, zip(*rows.values()))
    data = {name: (("clip", "feature"), array) for name, array in zip(("n", "total", "square"), frame_sums)}
    data = xr.Dataset({"error": (("clip", "which", "layer", "feature"), error), **data})
    data = data.assign_coords(fitted[["layer", "feature", "unit"]].coords | results.coordinates(clips, rows))
    sums = data.groupby("speaker").sum("clip", skipna=False)  # where there is no decoder, NaN
    within = sums["square"] - sums["total"] ** 2 / np.maximum(sums["n"], 1)
    r2, training = (
        1 - sums["error"] / variation.where(variation > 1e-9 * sums["n"]) for variation in (within, sums["square"])
    )
    further = {"speakers": r2[:, 0], **dict(zip(("training", "shuffled"), training.mean("speaker")))}
    attributes = results.attributes(model, skipped, method="validity of decoders")
    return statistics.over_speakers(r2[:, 0]).assign(further).assign_attrs(attributes)


@torch.no_grad()
def _read(model, clips, skipped):
    """Yield (index, hidden [layer, frame, neuron], true [feature, frame]) of each clip."""
    sites = model.sites()
    for index, waveform in model.stream(clips, skipped):
        with hooks.capture(model, sites) as captured:
            execution.prefix(model, model.tensor(waveform), model.n_layers)
        yield index, torch.stack([captured[site][0] for site in sites]), truth(model, waveform)


def _decode(weight, bias, share, hidden):
    """Decode [row, frame, neuron] to [row, feature]; `share` [feature, frame] holds the weights of the frames."""
    return torch.einsum("rtf,ft->rf", _with_slope_magnitude(hidden @ weight.T + bias), share)


def _means(true):
    """Compute the means over frames of the features [feature, frame] of a clip."""
    return _with_slope_magnitude(torch.as_tensor(true.T)).nanmean(dim=0).numpy()


def _with_slope_magnitude(features):
    """Remove the sign of the last feature, `f0_delta`, of [..., feature]."""
    return torch.cat([features[..., :-1], features[..., -1:].abs()], dim=-1)


def _ridge(x, y, split):
    """Fit weight [column, neuron], bias and strength [column] of x [frame, neuron] to the columns of y, without NaN."""
    weight = np.full((y.shape[1], x.shape[1]), np.nan)
    bias, strength = np.full((2, y.shape[1]), np.nan)
    masks, mask_of_column = np.unique(np.isfinite(y), axis=1, return_inverse=True)
    for number, mask in enumerate(masks.T):
        columns = np.flatnonzero(mask_of_column == number)
        folds = [mask & (split == fold) for fold in set(split[mask])]
        if len(folds) < 2:  # no cross-validation is possible
            continue
        centre, scale = x[mask].mean(axis=0), x[mask].std(axis=0)
        scale[scale == 0] = 1
        standardised, true = np.insert((x - centre) / scale, 0, 1, axis=1), y[:, columns]
        z, error = np.hstack([standardised, true]), 0
        sums = [z[fold].T @ z[fold] for fold in folds]
        for fold, products in zip(folds, sums):
            predicted = standardised[fold] @ _solve(sum(sums) - products, len(scale))
            error = error + np.square(predicted - true[fold]).sum(axis=1)
        best = error.argmin(axis=0)
        solution = _solve(sum(sums), len(scale))[best, :, range(len(columns))]
        weight[columns], strength[columns] = solution[:, 1:] / scale, STRENGTHS[best]
        bias[columns] = solution[:, 0] - weight[columns] @ centre
    return weight, bias, strength


def _solve(sums, width):
    """Solve for bias and weights [strength, 1 + neuron, column], given sums of products of (1, neurons, columns)."""
    mean = sums[0, 1:] / sums[0, 0]
    covariation = sums[1:, 1:] - np.outer(mean, sums[0, 1:])
    penalised = covariation[:width, :width] + STRENGTHS[:, None, None] * np.eye(width)
    weight = np.linalg.solve(penalised, covariation[None, :width, width:])
    return np.insert(weight, 0, mean[width:] - mean[:width] @ weight, axis=1)
