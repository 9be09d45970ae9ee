"""Speaker spaces: directions in which voices differ, at every layer, and the similarity of two recordings in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_curve
from tqdm.auto import tqdm

from .. import execution, hooks, results, statistics
from ..activations import activations
from ..corpora import as_clips, identity
from ..models import checkpoints, require_model
from ..models.sites import State

if TYPE_CHECKING:
    from ..models import Model

MIN_TRAIN_SPEAKERS = 3  # speakers, to fit on


def speaker_names(clips: pd.DataFrame, min_speakers: int = 1, *, train_speakers: Iterable[str] = ()) -> list[str]:
    """Return the names of the speakers, sorted.

    Raises ValueError if a clip has no speaker, if a speaker is among those of an earlier fit, or if there are fewer
    than `min_speakers`. Names are compared as by `identity.comparable_name`.
    """
    missing = clips["speaker"].isna().sum() if "speaker" in clips else len(clips)
    if missing:
        raise ValueError(f"{missing} of {len(clips)} clips have no speaker: add a column `speaker`, or leave them out")
    names = sorted(set(identity.unify_spelling(clips["speaker"])))
    if len(names) < min_speakers:
        raise ValueError(
            f"a speaker space and decoders must be fitted on {min_speakers} speakers or more, and there are "
            f"{len(names)}: add clips"
        )
    fitted_speakers = {identity.comparable_name(name) for name in train_speakers}
    common = [name for name in names if identity.comparable_name(name) in fitted_speakers]
    if common:
        raise ValueError(f"{common[0]} is a training speaker of what was fitted: use clips of other speakers")
    return names


def require_dataset(fitted: xr.Dataset | None, by: str) -> None:
    """Raise ValueError unless `fitted` is None or a Dataset, as returned by the function `by`."""
    if not (fitted is None or isinstance(fitted, xr.Dataset)):
        raise ValueError(f"expected the Dataset returned by {by}(model, clips), not a {type(fitted).__name__}")


def check(model: Model, fitted: xr.Dataset, by: str) -> None:
    """Raise ValueError if `fitted`, as returned by the function `by`, is of another model, or no Dataset."""
    require_dataset(fitted, by)
    sizes = fitted.sizes["layer"], fitted.sizes["neuron"]
    if fitted.attrs["model"] != model.name or sizes != (model.n_layers + 1, model.n_neurons(0)):
        raise ValueError(f"this was fitted on another model, {fitted.attrs['model']}: use {by}(model, clips)")


def fit(model: Model, clips, *, sample_rate: int | None = None) -> xr.Dataset:
    """Fit the directions of each layer in which training speakers differ most, relative to how much each one varies.

    Linear discriminant analysis (scikit-learn, covariance shrunken after Ledoit and Wolf) of the means of clips over
    their frames of speech. Speakers with only one clip are left out.

    Returns
    -------
    Dataset
        `projection` [layer, axis, neuron] and `centre` [layer, neuron], the mean of the speakers' means; axes are one
        fewer than speakers. attrs["speakers"]: the training speakers, as JSON.

    Raises
    ------
    ValueError
        A clip has no speaker, or fewer than three speakers have two clips or more.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    speaker_names(clips, MIN_TRAIN_SPEAKERS)
    result = activations(model, clips, "hidden_state")
    names = identity.unify_spelling(result["speaker"].to_series())
    several = names.duplicated(keep=False)
    single = {str(index): "its speaker has no other clip" for index in names.index[~several]}
    names = names[several]
    train_speakers = speaker_names(names.to_frame(), MIN_TRAIN_SPEAKERS)

    values = result["activation"].values[several].astype(float)
    projection = []
    centre = []
    for layer in tqdm(range(values.shape[1]), "layers", leave=False, delay=2):
        lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(values[:, layer], names)
        projection.append(lda.scalings_[:, : len(train_speakers) - 1].T)
        centre.append(lda.means_.mean(axis=0))

    skipped = json.loads(result.attrs["skipped"]) | single
    options = {"method": "speakers", "clips": len(values), "speakers": json.dumps(train_speakers)}
    return xr.Dataset(
        {"projection": (("layer", "axis", "neuron"), projection), "centre": (("layer", "neuron"), centre)},
        {"layer": result["layer"].values, "neuron": result["neuron"].values},
        results.attributes(model, skipped, **options),
    )


def readout_functions(model: Model, space: xr.Dataset | Callable, waveform: np.ndarray) -> dict:
    """Return readouts for `execution.cascade_read` of this clip: {Site: [row, frame, neuron] to [row, axis]}.

    They give the clip's position in the space. A space of `fit` is read at every layer, from the frames in which the
    waveform holds speech (all, if there is none), that of `xvector` at the last.
    """
    if callable(space):
        return {hooks.Site(model.n_layers): space}
    check(model, space, "speaker_space.fit")
    speech = model.speech(waveform)
    speech = torch.as_tensor(speech | ~speech.any(), device=model.device)

    def read(projection, centre, hidden):
        return (hidden[:, speech].mean(dim=1) - centre) @ projection.T

    projection = torch.as_tensor(space["projection"].values).float().to(model.device)
    centre = torch.as_tensor(space["centre"].values).float().to(model.device)
    return {hooks.Site(layer): partial(read, projection[layer], centre[layer]) for layer in range(len(centre))}


def similarity(reader: Callable) -> Callable:
    """Return a readout of cosines [row, 1] with the clean row, from one of those that give positions in a space.

    `execution.cascade_read` passes the clean row first, alone or with others.
    """
    clean = []

    def read(hidden):
        positions = reader(hidden)
        if not clean:
            clean.append(positions[:1])
        return torch.cosine_similarity(positions, clean[0], dim=-1)[:, None]

    return read


def equal_error_rate(
    model: Model, clips, space: xr.Dataset | Callable, *, draws: int = 20, seed: int = 0, sample_rate: int | None = None
) -> xr.Dataset:
    """Compute the equal-error rate of speaker verification by cosine similarity.

    All pairs of clips count, but those known to say the same statement: it would make them alike.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`. Of speakers outside the training set of `fit`.
    space : as returned by `fit` or `xvector`
    draws : int
        How often speakers are shuffled among the clips, for the chance level.

    Returns
    -------
    Dataset
        `eer` and, for shuffled speakers, `shuffled` [layer]: 0 is perfect, the chance level is 0.5. The scale on which
        to read a similarity: `same` and `different` [layer], the mean cosine of two clips of one and of different
        speakers, and `threshold` [layer], the cosine from which up two clips are taken for one speaker's, where both
        errors are as frequent. An edited clip whose cosine with the clean one is `same` is no less alike than another
        recording of the speaker; below `threshold` it would be taken for another speaker's. `speakers`, `same_pairs`
        and `different_pairs`: how many. Rates and threshold are NaN under 8 speakers, or where a kind of pair is
        lacking; attrs["reason"] says so.

    Raises
    ------
    ValueError
        A clip has no speaker, or its speaker is a training speaker of `fit`; no clip could be used.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    train_speakers = []
    if not callable(space):
        check(model, space, "speaker_space.fit")
        train_speakers = json.loads(space.attrs["speakers"])
    speaker_names(clips, train_speakers=train_speakers)

    skipped = {}
    positions = _positions(model, clips, space, skipped)
    if not positions:
        raise ValueError(f"no clip could be used: {next(iter(skipped.values()))}")

    table = clips.loc[list(positions)]
    speakers = pd.factorize(identity.unify_spelling(table["speaker"]))[0]
    first, second = _trial_pairs(table)
    same = speakers[first] == speakers[second]
    x = np.stack(list(positions.values()), axis=1)  # [layer, clip, axis]
    cosines = (x[:, first] * x[:, second]).sum(axis=-1)  # [layer, pair]

    n_speakers = len(set(speakers))
    reason = _why_without_rates(n_speakers, same)
    eer = np.full(len(cosines), np.nan)
    threshold = np.full(len(cosines), np.nan)
    shuffled = np.full(len(cosines), np.nan)
    if not reason:
        for layer, layer_cosines in enumerate(cosines):
            eer[layer], threshold[layer] = _eer(same, layer_cosines)
        shuffled = _eer_of_shuffled_speakers(cosines, speakers, first, second, draws, seed)

    return xr.Dataset(
        {
            "eer": ("layer", eer),
            "shuffled": ("layer", shuffled),
            "threshold": ("layer", threshold),
            "same": ("layer", cosines @ same / (same.sum() or np.nan)),
            "different": ("layer", cosines @ ~same / ((~same).sum() or np.nan)),
            "speakers": n_speakers,
            "same_pairs": int(same.sum()),
            "different_pairs": int((~same).sum()),
        },
        {"layer": [model.n_layers] if callable(space) else list(range(len(cosines)))},
        results.attributes(model, skipped, method="equal error rate", draws=draws, seed=seed, reason=reason),
    )


def xvector(model: Model, name_or_path: str) -> Callable:
    """Load the space of a trained x-vector head (experimental): a function, [row, frame, neuron] of the last block to
    [row, axis].

    It takes a checkpoint of `WavLMForXVector`, in safetensors, whose encoder is the model's, weight by weight, and
    whose head reads the last layer. All frames count; where they are too few for the head's convolutions, it is NaN.

    Raises
    ------
    FileNotFoundError, ValueError
        It cannot be read; another encoder, a weighted sum of layers, no trained x-vector head.

    References
    ----------
    Snyder et al. (2018), X-vectors: robust DNN embeddings for speaker recognition, ICASSP.
    """
    from transformers import AutoModelForAudioXVector

    folder = checkpoints.folder(name_or_path)
    config = checkpoints.config(folder)
    if getattr(config, "use_weighted_layer_sum", False):
        raise ValueError(f"{name_or_path} reads a weighted sum of layers: use a head that reads the last one")
    options = {"dtype": torch.float32, "use_safetensors": True, "ignore_mismatched_sizes": True}
    try:
        network, info = AutoModelForAudioXVector.from_pretrained(
            folder, config=config, output_loading_info=True, **options
        )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(f"{name_or_path} could not be read from safetensors: {reason}") from error
    _require_trained_head(info, name_or_path)
    _require_same_encoder(model, network, name_or_path)

    network.eval().requires_grad_(False).to(model.device)
    projector, tdnn, last = network.projector, network.tdnn, network.feature_extractor
    min_frames = 2 + sum((kernel - 1) * step for kernel, step in zip(config.tdnn_kernel, config.tdnn_dilation))

    def embed(hidden):
        if hidden.shape[1] < min_frames:
            return hidden.new_full((len(hidden), last.out_features), torch.nan)
        x = projector(model.architecture.finish(State(model.n_layers, hidden)))
        for layer in tdnn:
            x = layer(x)
        return last(torch.cat([x.mean(dim=1), x.std(dim=1)], dim=-1))

    return embed


def _require_trained_head(info, name_or_path):
    """Raise ValueError if a weight of the head is missing in a checkpoint, by the loading info of `transformers`."""
    untrained = set(info["missing_keys"])
    untrained.update(name for name, *_ in info["mismatched_keys"])
    missing = sorted(name for name in untrained if name.startswith(("projector.", "tdnn.", "feature_extractor.")))
    if missing:
        raise ValueError(f"{name_or_path} has no trained x-vector head: it lacks {missing[0]}")


def _require_same_encoder(model, network, name_or_path):
    """Raise ValueError if a weight of the model's encoder is not that of the network."""
    encoder = network.base_model.state_dict()
    for name, weight in model.architecture.base.state_dict().items():
        if name != "masked_spec_embed" and not (name in encoder and torch.equal(weight.cpu(), encoder[name])):
            raise ValueError(f"{name_or_path} has another encoder than {model.name}: {name} differs")


def _positions(model, clips, space, skipped):
    """Return the position of each clip in the space, of norm 1: {index: [layer, axis]}; the others go to `skipped`."""
    positions = {}
    for index, waveform in model.stream(clips, skipped):
        site_readouts = readout_functions(model, space, waveform)
        _, outputs = execution.cascade_read(model, waveform, [], site_readouts)
        position = torch.cat([outputs[site] for site in site_readouts]).cpu().double().numpy()
        if np.isfinite(position).all():
            positions[index] = position / np.linalg.norm(position, axis=-1, keepdims=True)
        else:
            skipped[index] = "it is too short for the x-vector head"
    return positions


def _trial_pairs(clips):
    """Return the rows of the first and of the second clip of each pair, but for those known to say the same."""
    first, second = np.triu_indices(len(clips), 1)
    if "statement" not in clips:
        return first, second
    statements = pd.factorize(clips["statement"])[0]  # -1 where it is not known
    counted = (statements[first] != statements[second]) | (statements[first] < 0)
    return first[counted], second[counted]


def _why_without_rates(n_speakers, same):
    """Return why there are no error rates of pairs that are of the same speaker or not, [pair]; "" if there are."""
    if n_speakers < statistics.MIN_SPEAKERS:
        return f"{n_speakers} unseen speakers are too few: {statistics.MIN_SPEAKERS} are needed"
    if same.all() or not same.any():
        return "no two clips of one speaker, or of two, have different statements"
    return ""


def _eer(same, cosines):
    """Return the equal-error rate of pairs, and the cosine at which it is: half-way between its two neighbours."""
    false, true, thresholds = roc_curve(same, cosines, drop_intermediate=False)
    thresholds[0] = thresholds[1]  # not infinity
    midpoints = (thresholds + np.append(thresholds[1:], thresholds[-1])) / 2
    # The rate of misses, 1 − true, equals that of false acceptances where this crosses 0.
    excess = false + true - 1
    return np.interp(0, excess, false), np.interp(0, excess, midpoints)


def _eer_of_shuffled_speakers(cosines, speakers, first, second, draws, seed):
    """Return the mean equal-error rate [layer] over draws in which speakers are shuffled among the clips."""
    rng = np.random.default_rng(seed)
    rates = np.empty((draws, len(cosines)))
    for draw in range(draws):
        shuffled = rng.permutation(speakers)
        same = shuffled[first] == shuffled[second]
        for layer, layer_cosines in enumerate(cosines):
            rates[draw, layer], _ = _eer(same, layer_cosines)
    return rates.mean(axis=0)
