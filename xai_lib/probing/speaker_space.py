"""Spaces in which voices lie apart, at every layer, and how alike two recordings sound in them."""

import json
from functools import partial

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
from ..models import checkpoints
from ..models.sites import State

FEWEST = 3  # speakers, to fit on


def known(clips, fewest=1, *, heard=()) -> list[str]:
    """Who speaks; ValueError if that is not known of a clip, was `heard` before, or they are fewer than `fewest`.

    Names are compared as by `identity.compared`.
    """
    lacking = clips["speaker"].isna().sum() if "speaker" in clips else len(clips)
    if lacking:
        raise ValueError(f"{lacking} of {len(clips)} clips have no speaker: add a column `speaker`, or leave them out")
    names = sorted(set(identity.unified(clips["speaker"])))
    if len(names) < fewest:
        raise ValueError(f"this is fitted on {fewest} speakers or more, and there are {len(names)}: add clips")
    fitted_on = {identity.compared(name) for name in heard}
    both = [name for name in names if identity.compared(name) in fitted_on]
    if both:
        raise ValueError(f"it was fitted on speaker {both[0]}: take clips of speakers whom it has not heard")
    return names


def dataset(fitted, by) -> None:
    """ValueError where something else than a Dataset, as of the function `by`, or None is given."""
    if not (fitted is None or isinstance(fitted, xr.Dataset)):
        raise ValueError(f"what {by}(model, clips) gives is needed, a Dataset, and not a {type(fitted).__name__}")


def check(model, fitted, by) -> None:
    """ValueError where what the function `by` fitted is of another model."""
    dataset(fitted, by)
    sizes = fitted.sizes["layer"], fitted.sizes["neuron"]
    if fitted.attrs["model"] != model.name or sizes != (model.n_layers + 1, model.n_neurons(0)):
        raise ValueError(f"this was fitted on another model, {fitted.attrs['model']}: use {by}(model, clips)")


def fit(model, clips, *, sample_rate=None) -> xr.Dataset:
    """The directions of each layer in which training speakers differ most, for how much each one varies.

    Linear discriminant analysis (scikit-learn, covariance shrunken after Ledoit and Wolf) of the means of clips over
    their frames of speech. Clips whose speaker has no other are left out.

    Returns
    -------
    Dataset
        `projection` [layer, axis, neuron] and `centre` [layer, neuron], the mean of the speakers' means; axes are one
        fewer than speakers. attrs["speakers"]: whom it has heard, as JSON.

    Raises
    ------
    ValueError
        A clip has no speaker, or fewer than three speakers have two clips or more.
    """
    clips = as_clips(clips, sample_rate)
    known(clips, FEWEST)
    found = activations(model, clips, "block")
    names = identity.unified(found["speaker"].to_series())
    several = names.duplicated(keep=False)
    alone = {str(index): "its speaker has no other clip" for index in names.index[~several]}
    names, x = names[several], found["activation"].values[several].astype(float)
    heard, projection, centre = known(names.to_frame(), FEWEST), [], []
    for layer in tqdm(range(x.shape[1]), "layers", leave=False, delay=2):
        lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(x[:, layer], names)
        projection.append(lda.scalings_[:, : len(heard) - 1].T)
        centre.append(lda.means_.mean(axis=0))
    made = {"method": "speakers", "clips": len(x), "speakers": json.dumps(heard)}
    return xr.Dataset(
        {"projection": (("layer", "axis", "neuron"), projection), "centre": (("layer", "neuron"), centre)},
        {"layer": found["layer"].values, "neuron": found["neuron"].values},
        results.attributes(model, json.loads(found.attrs["skipped"]) | alone, **made),
    )


def readers(model, space, waveform) -> dict:
    """For `execution.cascade_read` of this clip: {Site: [row, frame, neuron] to [row, axis]}, its place in the space.

    A space of `fit` is read at every layer, from the frames in which the waveform holds speech (all, if there is none),
    that of `xvector` at the last.
    """
    if callable(space):
        return {hooks.Site(model.n_layers): space}
    check(model, space, "speakers.fit")
    keep = model.speech(waveform)
    keep = torch.as_tensor(keep | ~keep.any(), device=model.device)

    def read(projection, centre, hidden):
        return (hidden[:, keep].mean(dim=1) - centre) @ projection.T

    both = [torch.as_tensor(space[name].values).float().to(model.device) for name in ("projection", "centre")]
    return {hooks.Site(layer): partial(read, *at) for layer, at in enumerate(zip(*both))}


def similarity(reader):
    """Of one of `readers`, cosines [row, 1] with the clean row, which `execution.cascade_read` shows first."""
    clean = []

    def read(hidden):
        places = reader(hidden)
        if not clean:
            clean.append(places)
        return torch.cosine_similarity(places, clean[0], dim=-1)[:, None]

    return read


def equal_error_rate(model, clips, space, *, draws=20, seed=0, sample_rate=None) -> xr.Dataset:
    """How often cosines take two people for one, at the threshold where they take one for two as often.

    All pairs of clips count, but those known to say the same statement: it would make them alike.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`. Of speakers whom `fit` has not heard.
    space : of `fit` or `xvector`
    draws : int
        How often speakers are dealt out at random among the clips, for chance.

    Returns
    -------
    Dataset
        `eer` and, of the shuffled, `shuffled` [layer]: 0 is perfect, 0.5 chance. The scale on which to read a
        similarity: `same` and `different` [layer], the mean cosine of two clips of one and of different speakers, and
        `threshold` [layer], the cosine from which up two clips are taken for one speaker's, where both errors are as
        frequent. An edited clip whose cosine with the clean one is `same` is no less alike than another recording of
        the speaker; below `threshold` it would be taken for somebody else's. `speakers`, `same_pairs` and
        `different_pairs`: how many. Rates and threshold are NaN under 8 speakers, or where a kind of pair is lacking;
        attrs["reason"] says so.

    Raises
    ------
    ValueError
        A clip has no speaker, or one whom `fit` has heard; no clip could be used.
    """
    clips = as_clips(clips, sample_rate)
    if not callable(space):
        check(model, space, "speakers.fit")
    known(clips, heard=() if callable(space) else json.loads(space.attrs["speakers"]))
    skipped, rows = {}, {}
    for index, waveform in model.stream(clips, skipped):
        reading = readers(model, space, waveform)
        _, seen = execution.cascade_read(model, waveform, [], reading)
        places = torch.cat([seen[site] for site in reading]).cpu().double().numpy()
        if np.isfinite(places).all():
            rows[index] = places / np.linalg.norm(places, axis=-1, keepdims=True)
        else:
            skipped[index] = "it is too short for the x-vector head"
    if not rows:
        raise ValueError(f"not one clip could be used: {next(iter(skipped.values()))}")
    x, table = np.stack(list(rows.values()), axis=1), clips.loc[list(rows)]
    who = pd.factorize(identity.unified(table["speaker"]))[0]
    said = pd.factorize(table["statement"])[0] if "statement" in table else np.full(len(table), -1)
    one, other = np.triu_indices(len(table), 1)
    apart = (said[one] != said[other]) | (said[one] < 0)
    one, other = one[apart], other[apart]
    cosines, same = (x[:, one] * x[:, other]).sum(axis=-1), who[one] == who[other]
    n = {"speakers": len(set(who)), "same_pairs": int(same.sum()), "different_pairs": int((~same).sum())}
    rng, reason = np.random.default_rng(seed), ""
    if n["speakers"] < statistics.FEWEST:
        reason = f"{n['speakers']} unseen speakers are too few: {statistics.FEWEST} are needed"
    elif same.all() or not same.any():
        reason = "no two clips of one speaker, or of two, say different things"
    dealt = [who] + [rng.permutation(who) for _ in range(draws)]
    rates = [[_rate(given[one] == given[other], at) for at in cosines] for given in dealt if not reason]
    rates = np.array(rates or [[[np.nan] * 2] * len(x)] * 2)
    found = {"eer": rates[0, :, 0], "shuffled": rates[1:, :, 0].mean(axis=0), "threshold": rates[0, :, 1]}
    for name, kind in (("same", same), ("different", ~same)):
        found[name] = cosines @ kind / (kind.sum() or np.nan)
    return xr.Dataset(
        {name: ("layer", values) for name, values in found.items()} | n,
        {"layer": [site.layer for site in reading]},
        results.attributes(model, skipped, method="equal error rate", draws=draws, seed=seed, reason=reason),
    )


def xvector(model, name_or_path):
    """The space of a trained x-vector head: a function, [row, frame, neuron] of the last block to [row, axis].

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
        raise ValueError(f"{name_or_path} reads a weighted sum of layers: give a head that reads the last one")
    options = {"dtype": torch.float32, "use_safetensors": True, "ignore_mismatched_sizes": True}
    try:
        network, info = AutoModelForAudioXVector.from_pretrained(
            folder, config=config, output_loading_info=True, **options
        )
    except OSError as error:
        why = str(error).splitlines()[0]
        raise FileNotFoundError(f"{name_or_path} could not be read from safetensors: {why}") from error
    fresh = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    lacking = sorted(name for name in fresh if name.startswith(("projector.", "tdnn.", "feature_extractor.")))
    if lacking:
        raise ValueError(f"{name_or_path} has no trained x-vector head: it lacks {lacking[0]}")
    theirs = network.base_model.state_dict()
    for name, weight in model.family.base.state_dict().items():
        if name != "masked_spec_embed" and not (name in theirs and torch.equal(weight.cpu(), theirs[name])):
            raise ValueError(f"{name_or_path} has another encoder than {model.name}: {name} differs")
    network.eval().requires_grad_(False).to(model.device)
    projector, tdnn, last = network.projector, network.tdnn, network.feature_extractor
    fewest = 2 + sum((kernel - 1) * step for kernel, step in zip(config.tdnn_kernel, config.tdnn_dilation))

    def embed(hidden):
        if hidden.shape[1] < fewest:
            return hidden.new_full((len(hidden), last.out_features), torch.nan)
        x = projector(model.family.finish(State(model.n_layers, hidden)))
        for layer in tdnn:
            x = layer(x)
        return last(torch.cat([x.mean(dim=1), x.std(dim=1)], dim=-1))

    return embed


def _rate(same, cosines):
    """Equal-error rate of pairs, and the cosine at which it is; half-way between the two that it lies between."""
    false, true, least = roc_curve(same, cosines, drop_intermediate=False)
    least[0] = least[1]  # not infinity
    cuts = (least + np.append(least[1:], least[-1])) / 2
    return [np.interp(0, false + true - 1, values) for values in (false, cuts)]
