"""Linear decoders of acoustic features from hidden states: how loud, bright and high a voice is according to a layer.

Read after an edit, they measure its effect on the acoustics that the layer encodes, in each feature's own unit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import xarray as xr
from tqdm.auto import tqdm

from .. import audio, execution, hooks, results, statistics, targets
from ..corpora import as_clips, identity
from ..models import require_model
from . import speaker_space

if TYPE_CHECKING:
    from ..models import Model

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


def truth(model: Model, waveform: np.ndarray) -> np.ndarray:
    """Compute the features of a waveform [time] at the model's frames, [feature, frame]; NaN in frames without a value.

    `level` is the RMS in dB of full scale and `envelope` the largest sample in the frame, linear, so that it follows
    the loud frames and peaks. They, `zcr` and `centroid` are defined in frames of speech (in all, where none is found),
    `f0` in those that are voiced too. `f0_delta` is its slope from the frame before to the one after, all three voiced.
    """
    centred = audio.without_offset(torch.as_tensor(waveform))
    tensors = audio.features(centred, model.sample_rate, hop=model.hop, span=model.span)
    features = {name: tensor.cpu().double().numpy() for name, tensor in tensors.items()}
    speech = model.speech(waveform)
    speech |= ~speech.any()

    pitch = np.where(speech, 12 * np.log2(features["f0"] / 100), np.nan)
    padded = np.pad(pitch, 1, constant_values=np.nan)
    slope = (padded[2:] - padded[:-2]) / (2 * model.frame_seconds)
    values = {
        "level": 20 * np.log10(features["rms"] + 1e-6),
        "envelope": 100 * features["envelope"],
        "zcr": model.sample_rate * features["zcr"],
        "centroid": features["centroid"],
        "f0": pitch,
        "f0_delta": np.where(np.isfinite(pitch), slope, np.nan),
    }
    return np.where(speech, [values[name] for name in FEATURES], np.nan)


def measure(model: Model, clips, *, sample_rate: int | None = None) -> xr.DataArray:
    """Compute the true features of whole clips [clip, feature], as means over the frames that have a value.

    The mean of `f0_delta` is that of its magnitude.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    skipped = {}
    rows = {}
    for index, waveform in model.stream(clips, skipped):
        rows[index] = _means(truth(model, waveform))
    coords = {**results.coordinates(clips, rows), **_feature_coordinates()}
    attributes = results.attributes(model, skipped, method="decoders.measure")
    return xr.DataArray(np.stack(list(rows.values())), coords, ("clip", "feature"), "features", attributes)


def fit(model: Model, clips, *, frames: int = 6000, seed: int = 0, sample_rate: int | None = None) -> xr.Dataset:
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
    require_model(model)
    clips = as_clips(clips, sample_rate)
    speaker_space.speaker_names(clips, speaker_space.MIN_TRAIN_SPEAKERS)
    frames_per_clip = max(frames // len(clips), 1)
    skipped = {}
    samples = {}
    means = []
    for index, hidden, true in _read(model, clips, skipped):
        rng = np.random.default_rng(targets.key(seed, index, targets.SEED_DECODERS))
        speech = np.flatnonzero(np.isfinite(true[0]))
        drawn = rng.choice(speech, min(frames_per_clip, len(speech)), replace=False)  # in random order
        samples[index] = _Frames(hidden[:, drawn].cpu().numpy(), true[:, drawn].T)
        means.append(_means(true))
    speakers = clips.loc[list(samples), "speaker"]
    train_speakers = speaker_space.speaker_names(speakers.to_frame(), speaker_space.MIN_TRAIN_SPEAKERS)

    # The order of clips depends on their positions only, the fold of a speaker on that of the speaker's first clip.
    folds = _speaker_folds(identity.unify_spelling(speakers), seed)
    order = np.random.default_rng(seed).permutation(len(samples))
    ordered = [list(samples.values())[position] for position in order]
    hidden = np.concatenate([sample.hidden for sample in ordered], axis=1)
    true = np.concatenate([sample.true for sample in ordered])
    frame_folds = np.repeat(folds[order], [len(sample.true) for sample in ordered])

    # Decoders of true and of shuffled features are fitted together, from the same sums of products.
    columns = np.concatenate([true, _rolled_by_half(true)], axis=1)
    real = slice(len(FEATURES))
    shuffled = slice(len(FEATURES), None)
    by_layer = []
    for layer_hidden in tqdm(hidden, "layers", leave=False, delay=2):
        by_layer.append(_ridge(layer_hidden.astype(float), columns, frame_folds))
    weight = np.stack([regression.weight for regression in by_layer])
    bias = np.stack([regression.bias for regression in by_layer])
    strength = np.stack([regression.strength for regression in by_layer])
    return xr.Dataset(
        {
            "weight": (("layer", "feature", "neuron"), weight[:, real]),
            "bias": (("layer", "feature"), bias[:, real]),
            "strength": (("layer", "feature"), strength[:, real]),
            "shuffled_weight": (("layer", "feature", "neuron"), weight[:, shuffled]),
            "shuffled_bias": (("layer", "feature"), bias[:, shuffled]),
            "mean": ("feature", pd.DataFrame(true).mean()),
            "sd": ("feature", pd.DataFrame(means).std()),
        },
        {**results.axes(model.sites(), weight), **_feature_coordinates()},
        results.attributes(
            model, skipped, method="decoders", frames=len(true), seed=seed, speakers=json.dumps(train_speakers)
        ),
    )


def readout_functions(model: Model, fitted: xr.Dataset, waveform: np.ndarray) -> dict:
    """Return readouts for `execution.cascade_read` of this clip: {Site: [row, frame, neuron] to [row, feature]}.

    At every layer, means of what is decoded over the frames that have a value in the waveform, regardless of what an
    edit does to them; NaN where no frame has one. Of `f0_delta` the mean magnitude: how fast the pitch moves, since
    rises and falls cancel out.
    """
    speaker_space.check(model, fitted, "acoustic_decoders.fit")
    counts = np.isfinite(truth(model, waveform)).astype(float)
    total = counts.sum(axis=1, keepdims=True)
    share = torch.as_tensor(counts / np.where(total, total, np.nan)).float().to(model.device)
    weight = torch.as_tensor(fitted["weight"].values).float().to(model.device)
    bias = torch.as_tensor(fitted["bias"].values).float().to(model.device)
    return {hooks.Site(layer): _Decoder(weight[layer], bias[layer], share) for layer in range(len(weight))}


def direct_effect(readout_functions: dict, clean: dict) -> Callable:
    """Return a function from a change of the stream [1, frame, neuron] to its direct effect [layer, feature].

    That is what is read at each layer of `clean`, {Site: [1, frame, neuron]}, with the change added, minus what is read
    without. `clean` may be empty until the function is called.
    """
    decoders = readout_functions.values()
    weight = torch.stack([decoder.weight for decoder in decoders])
    bias = torch.stack([decoder.bias for decoder in decoders])
    share = torch.stack([decoder.share for decoder in decoders])

    @cache
    def decode_clean():
        hidden = torch.cat([clean[site] for site in readout_functions])
        return hidden @ weight.mT + bias[:, None]

    def read(change):
        before = decode_clean()
        after = before + change @ weight.mT
        difference = _with_slope_magnitude(after) - _with_slope_magnitude(before)
        return torch.einsum("ltf,lft->lf", difference, share)

    return read


def validity(model: Model, clips, fitted: xr.Dataset, *, sample_rate: int | None = None) -> xr.Dataset:
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
    require_model(model)
    clips = as_clips(clips, sample_rate)
    speaker_space.check(model, fitted, "acoustic_decoders.fit")
    speaker_space.speaker_names(clips, train_speakers=json.loads(fitted.attrs["speakers"]))
    skipped = {}
    rows = {}
    for index, hidden, true in _read(model, clips, skipped):
        rows[index] = _SumsOfSquares.from_clip(hidden.cpu().double(), true, fitted)

    by_layer = ("clip", "layer", "feature")
    clip_sums = xr.Dataset(
        {
            "n": (("clip", "feature"), np.stack([row.n for row in rows.values()])),
            "total": (("clip", "feature"), np.stack([row.total for row in rows.values()])),
            "squares": (("clip", "feature"), np.stack([row.squares for row in rows.values()])),
            "error": (by_layer, np.stack([row.error for row in rows.values()])),
            "shuffled_error": (by_layer, np.stack([row.shuffled_error for row in rows.values()])),
        }
    )
    clip_sums = clip_sums.assign_coords(fitted[["layer", "feature", "unit"]].coords)
    clip_sums = clip_sums.assign_coords(results.coordinates(clips, rows))
    sums = clip_sums.groupby("speaker").sum("clip", skipna=False)  # where there is no decoder, NaN
    within_speaker = sums["squares"] - sums["total"] ** 2 / np.maximum(sums["n"], 1)
    r2 = _r2(sums["error"], within_speaker, sums["n"])
    training = _r2(sums["error"], sums["squares"], sums["n"])
    shuffled = _r2(sums["shuffled_error"], sums["squares"], sums["n"])
    result = statistics.over_speakers(r2)
    result = result.assign(speakers=r2, training=training.mean("speaker"), shuffled=shuffled.mean("speaker"))
    return result.assign_attrs(results.attributes(model, skipped, method="validity of decoders"))


def _feature_coordinates():
    """Return the coordinates `feature` and `unit`."""
    return {"feature": list(FEATURES), "unit": ("feature", list(FEATURES.values()))}


@dataclass(frozen=True)
class _Frames:
    """Frames of a clip that decoders are fitted on: hidden [layer, frame, neuron], true features [frame, feature]."""

    hidden: np.ndarray
    true: np.ndarray


def _speaker_folds(speakers, seed):
    """Return the fold of each clip, that of its speaker, from the speakers' names [clip]."""
    order = np.random.default_rng(seed).permutation(speakers.unique())
    fold_of_speaker = {name: position % FOLDS for position, name in enumerate(order)}
    return speakers.map(fold_of_speaker).to_numpy()


def _rolled_by_half(true):
    """Return features [frame, feature] in which each frame has those of another one; NaN stay in place.

    Clips and their frames are in random order: rolled by half, the features share nothing with the frames.
    """
    rolled = true.copy()
    for column in rolled.T:
        finite = np.isfinite(column)
        column[finite] = np.roll(column[finite], finite.sum() // 2)
    return rolled


@dataclass(frozen=True)
class _Decoder:
    """The decoder of a layer, as a readout; it holds weight [feature, neuron], bias [feature], share [feature, frame].

    `share` holds the weights of the frames in a mean over those that have a value.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    share: torch.Tensor

    def __call__(self, hidden):
        """Decode [row, frame, neuron] to [row, feature]."""
        decoded = _with_slope_magnitude(hidden @ self.weight.T + self.bias)
        return torch.einsum("rtf,ft->rf", decoded, self.share)


@dataclass(frozen=True)
class _SumsOfSquares:
    """Sums over the frames of a clip that have a value, features counted from their mean in training.

    Of the features `n`, `total` and `squares` [feature]; `error` and `shuffled_error` [layer, feature], the squared
    errors of the decoders, and of those of other clips' features.
    """

    n: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    error: np.ndarray
    shuffled_error: np.ndarray

    @classmethod
    def from_clip(cls, hidden, true, fitted):
        """Sum up a clip's hidden [layer, frame, neuron] and true features [feature, frame]."""
        finite = np.isfinite(true.T)
        deviations = np.nan_to_num(true.T - fitted["mean"].values)
        return cls(
            n=finite.sum(axis=0),
            total=deviations.sum(axis=0),
            squares=(deviations**2).sum(axis=0),
            error=_squared_error(hidden, fitted["weight"], fitted["bias"], fitted["mean"], deviations, finite),
            shuffled_error=_squared_error(
                hidden, fitted["shuffled_weight"], fitted["shuffled_bias"], fitted["mean"], deviations, finite
            ),
        )


def _squared_error(hidden, weight, bias, mean, deviations, finite):
    """Sum up squared errors of decoders over the frames that have a value: [layer, feature].

    `deviations` of the true features from their mean in training, and `finite`, are [frame, feature].
    """
    weight = torch.as_tensor(weight.values).mT
    bias = torch.as_tensor(bias.values)[:, None]
    decoded = (hidden @ weight + bias).numpy()  # [layer, frame, feature]
    errors = np.where(finite, decoded - mean.values - deviations, 0)
    return (errors**2).sum(axis=1)


def _r2(error, variation, n):
    """Return the share of the variation (sum of squares over n frames) that is explained; NaN where nothing varies."""
    return 1 - error / variation.where(variation > 1e-9 * n)


@torch.no_grad()
def _read(model, clips, skipped):
    """Yield (index, hidden [layer, frame, neuron], true [feature, frame]) of each clip."""
    sites = model.sites()
    for index, waveform in model.stream(clips, skipped):
        with hooks.capture(model, sites) as captured:
            execution.prefix(model, model.tensor(waveform), model.n_layers)
        yield index, torch.stack([captured[site][0] for site in sites]), truth(model, waveform)


def _means(true):
    """Compute the means over frames of the features [feature, frame] of a clip."""
    return _with_slope_magnitude(torch.as_tensor(true.T)).nanmean(dim=0).numpy()


def _with_slope_magnitude(features):
    """Remove the sign of the last feature, `f0_delta`, of [..., feature]."""
    return torch.cat([features[..., :-1], features[..., -1:].abs()], dim=-1)


@dataclass(frozen=True)
class _RidgeFit:
    """Ridge regressions of columns: weight [column, neuron], bias and strength [column]."""

    weight: np.ndarray
    bias: np.ndarray
    strength: np.ndarray


def _ridge(x, y, split):
    """Fit x [frame, neuron] to the columns of y [frame, column], by cross-validation over the folds `split` [frame].

    Frames without a value (NaN) are left out; NaN for a column that has values in one fold only.
    """
    fit = _RidgeFit(
        weight=np.full((y.shape[1], x.shape[1]), np.nan),
        bias=np.full(y.shape[1], np.nan),
        strength=np.full(y.shape[1], np.nan),
    )
    # Columns that have values in the same frames are fitted together.
    masks, mask_of_column = np.unique(np.isfinite(y), axis=1, return_inverse=True)
    for number, mask in enumerate(masks.T):
        columns = np.flatnonzero(mask_of_column == number)
        folds = [mask & (split == fold) for fold in np.unique(split[mask])]
        if len(folds) < 2:  # no cross-validation is possible
            continue

        centre = x[mask].mean(axis=0)
        scale = x[mask].std(axis=0)
        scale[scale == 0] = 1
        standardised = np.insert((x - centre) / scale, 0, 1, axis=1)  # a column of 1 for the bias
        strengths, solution = _cross_validated(standardised, y[:, columns], folds)
        fit.weight[columns] = solution[:, 1:] / scale
        fit.bias[columns] = solution[:, 0] - fit.weight[columns] @ centre
        fit.strength[columns] = strengths
    return fit


def _cross_validated(x, y, folds):
    """Return the best strength [column], and with it bias and weights [column, 1 + neuron], of x [frame, 1 + neuron].

    `folds` are masks [frame]; the errors of all strengths come from sums of products, without further passes.
    """
    n_neurons = x.shape[1] - 1
    joined = np.hstack([x, y])
    products = [joined[fold].T @ joined[fold] for fold in folds]

    error = 0
    for fold, fold_products in zip(folds, products):
        predicted = x[fold] @ _solve(sum(products) - fold_products, n_neurons)  # [strength, frame, column]
        error = error + np.square(predicted - y[fold]).sum(axis=1)
    best = error.argmin(axis=0)
    solution = _solve(sum(products), n_neurons)[best, :, range(y.shape[1])]
    return STRENGTHS[best], solution


def _solve(sums, width):
    """Solve for bias and weights [strength, 1 + neuron, column], given sums of products of (1, neurons, columns)."""
    mean = sums[0, 1:] / sums[0, 0]
    covariation = sums[1:, 1:] - np.outer(mean, sums[0, 1:])
    penalised = covariation[:width, :width] + STRENGTHS[:, None, None] * np.eye(width)
    weight = np.linalg.solve(penalised, covariation[None, :width, width:])
    bias = mean[width:] - mean[:width] @ weight
    return np.insert(weight, 0, bias, axis=1)
