"""Fit an emotion head on frozen features, evaluate it on unseen speakers, save it as a Hugging Face checkpoint."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from .. import audio, models
from ..corpora import as_clips, fingerprints, identity, sampling
from ..corpora.filenames import ordered
from ..models.architectures.wavlm import WavLM
from ..statistics import uar
from .extraction import activations

HEARD_BY = 20  # recordings of a speaker that are compared with those of the encoder


def features(model, clips, *, layers="all", sample_rate=None) -> xr.DataArray:
    """Mean over all frames of each layer's output [clip, layer, neuron]: what a head that averages over frames reads.

    `clips` need `label` and `speaker`, to fit on. Those that could not be read are named in `attrs["skipped"]` (JSON).
    """
    clips = as_clips(clips, sample_rate)
    found = activations(model, clips, model.sites("block", layers), frames="all")
    return found["activation"].rename("features").assign_attrs(found.attrs)


def cross_validate(features, *, folds=5, shuffles=5, C=0.1, seed=0) -> xr.Dataset:
    """Speaker-disjoint cross-validation of a linear head on each layer, and on the layer that each fold chooses.

    Parameters
    ----------
    features : DataArray [clip, layer, neuron]
        From `features`, with `label` and `speaker`.
    folds : int
        No speaker is in two of them. The layer is chosen inside the training speakers of a fold, so `uar` is not
        flattered by the choice; `uar_layer` is without a choice, layer by layer.
    shuffles : int
        Control: the same with labels shuffled within each speaker.
    C : float
        Inverse strength of the L2 penalty.

    Returns
    -------
    Dataset
        `predicted` [clip], `uar` (all clips), `uar_speaker` [speaker], `uar_layer` [layer], `uar_shuffled` [shuffle],
        `confusion` [label, predicted_label] (counts), `chosen` [fold] (layers), `chance`.

    Raises
    ------
    ValueError
        A clip lacks its label or speaker, there is one class, or there are fewer speakers than folds.
    """
    y, table = _labelled(features, folds)
    split = sampling.folds(table, folds, seed=seed).to_numpy()
    x, layers = features.values, features["layer"].values
    names = ordered(y)
    by_layer = [_predict(x[:, i], y, split, C) for i in tqdm(range(len(layers)), "layers", leave=False, delay=2)]
    predicted, chosen = np.empty(len(y), dtype=object), []
    for fold in tqdm(np.unique(split), "folds", leave=False, delay=2):
        inside, outside = split != fold, split == fold
        tried = [_predict(x[inside, i], y[inside], split[inside], C) for i in range(len(layers))]
        best = int(np.argmax([uar(y[inside], said) for said in tried]))
        chosen.append(int(layers[best]))
        predicted[outside] = _head(C).fit(x[inside, best], y[inside]).predict(x[outside, best])
    rng = np.random.default_rng(seed)
    usual = int(np.argmax(np.bincount(np.searchsorted(layers, chosen))))
    shuffled = []
    for _ in tqdm(range(shuffles), "shuffled labels", leave=False, delay=2):
        mixed = table.groupby("speaker")["label"].transform(lambda part: rng.permutation(part)).to_numpy()
        shuffled.append(uar(mixed, _predict(x[:, usual], mixed, split, C)))
    own = {str(name): rows for name, rows in table.reset_index().groupby("speaker", sort=False)["index"]}
    counts = pd.crosstab(y, predicted).reindex(index=names, columns=names, fill_value=0)
    return xr.Dataset(
        {
            "predicted": ("clip", predicted.astype(str)),
            "uar": uar(y, predicted),
            "uar_speaker": ("speaker_name", [uar(y[rows], predicted[rows]) for rows in own.values()]),
            "uar_layer": ("layer", [uar(y, row) for row in by_layer]),
            "uar_shuffled": ("shuffle", shuffled),
            "confusion": (("label_name", "predicted_label"), counts.to_numpy()),
            "chosen": ("fold", chosen),
            "chance": 1 / len(names),
        },
        coords={
            "clip": features["clip"].values,
            "label": ("clip", y.astype(str)),
            "speaker": ("clip", table["speaker"].astype(str).to_numpy()),
            "speaker_name": list(own),
            "layer": layers,
            "label_name": names,
            "predicted_label": names,
        },
        attrs={"folds": folds, "C": C, "seed": seed, "method": "logistic regression on standardised means over frames"},
    )


def fit(model, clips, folder, *, layers="all", folds=5, C=0.1, seed=0, sample_rate=None):
    """Fit a head on all of `clips`, on the layer that cross-validation favours, and save encoder and head.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`, or a DataArray from `features`. Leave out the speakers on whom you want to explain
        or test. It warns of those whom the encoder has heard.
    folder : path
        New; takes `config.json`, `model.safetensors` and `preprocessor_config.json`, which
        `AutoModelForAudioClassification.from_pretrained` and `models.load` open. The metrics are in the config as
        `xai_metrics`, the speakers as `xai_head_trained_on`. Where `clips` is a DataFrame, `recordings.csv` holds the
        fingerprints of its recordings beside those of the encoder, so that copies under other names are recognised.

    Returns
    -------
    (Model, Dataset)
        The new model, and the cross-validation that chose its layer.

    Raises
    ------
    FileExistsError, ValueError
        There is a model in `folder`; the model is no WavLM; otherwise as `cross_validate`.

    Notes
    -----
    The standardisation is folded into the classifier, the projector is the identity, and the layer is picked by
    `layer_weights`, whose softmax is 1 − 1e-12 there.
    """
    if not isinstance(clips, xr.DataArray):
        clips = as_clips(clips, sample_rate)
    from transformers import AutoModelForAudioClassification, Wav2Vec2FeatureExtractor

    folder = Path(folder).expanduser()
    if not isinstance(model.family, WavLM):
        raise ValueError(
            f"a head is fitted to a WavLM, and {model.name} is none: `cross_validate` of its `features` tells what its "
            "layers know"
        )
    if (folder / "config.json").exists():
        raise FileExistsError(f"there is a model in {folder}: give another folder, or remove it first")
    read = clips if isinstance(clips, xr.DataArray) else features(model, clips, layers=layers)
    report = cross_validate(read, folds=folds, C=C, seed=seed)
    y, table = _labelled(read, folds)
    used = clips.loc[read["clip"].values] if isinstance(clips, pd.DataFrame) else table
    recordings = _recordings(model, used)
    encoder = recordings[recordings["use"] == "trained"]
    states = identity.heard_before(used, model.trained_on or [], encoder, most=HEARD_BY)
    heard = (states == identity.HEARD).sum()
    if heard:
        warnings.warn(
            f"the encoder was trained on {heard} of these {len(states)} speakers, so the UAR of "
            f"{float(report['uar']):.2f} is not that of unseen people: fit on others to learn it",
            stacklevel=2,
        )
    layer = int(report["layer"].values[np.argmax(report["uar_layer"].values)])
    scaler, regression = (step for _, step in _head(C).fit(read.sel(layer=layer).values, y).steps)
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:  # of two classes scikit-learn keeps the second's logit
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    names = ordered(y)
    place = [list(regression.classes_).index(name) for name in names]
    weight = weight[place] / scaler.scale_
    bias = bias[place] - weight @ scaler.mean_

    config = copy.deepcopy(model.network.config)
    config.update(
        {
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "classifier_proj_size": config.hidden_size,
            "use_weighted_layer_sum": True,
            "problem_type": "single_label_classification",
            "xai_head_trained_on": sorted({*map(str, table["speaker"])}),
            "xai_metrics": {
                "layer": layer,
                **{name: round(float(report[name].mean()), 4) for name in ("uar", "uar_shuffled", "chance")},
                "folds": folds,
                "clips": len(y),
                "speakers": int(table["speaker"].nunique()),
            },
        }
    )
    network = AutoModelForAudioClassification.from_config(config)
    network.base_model.load_state_dict(model.family.base.state_dict())
    with torch.no_grad():
        network.projector.weight.copy_(torch.eye(config.hidden_size))
        network.projector.bias.zero_()
        network.classifier.weight.copy_(torch.from_numpy(weight))
        network.classifier.bias.copy_(torch.from_numpy(bias))
        network.layer_weights.zero_()[layer] = 30.0
    network.save_pretrained(folder)
    if len(recordings):
        fingerprints.write(recordings, folder)
    Wav2Vec2FeatureExtractor(
        do_normalize=model.preprocessor.get("do_normalize", False), sampling_rate=model.sample_rate
    ).save_pretrained(folder)
    return models.load(folder, device=str(model.device)), report


def _recordings(model, clips):
    """Those of the encoder, and those of the clips that the head is fitted on: as `fingerprints.write` takes them."""
    tables = [pd.DataFrame(columns=fingerprints.COLUMNS)]
    if model.trained_recordings is not None:
        tables.append(model.trained_recordings[model.trained_recordings["use"] != "head"])
    if {"path", "audio"} & set(clips):
        found = fingerprints.of_files(audio.sources(clips))
        tables.append(pd.DataFrame({"fingerprint": found, "use": "head", "speaker": identity.of_clips(clips)}))
    return pd.concat(tables, ignore_index=True)


def _head(C):
    """The linear head."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))


def _predict(x, y, split, C):
    """Labels predicted for each fold by a head that was fitted on the others."""
    return cross_val_predict(_head(C), x, y, cv=PredefinedSplit(split))


def _labelled(features, folds):
    """Labels, and a table of label and speaker; refuses what cannot be cross-validated."""
    for column in ("label", "speaker"):
        if column not in features.coords or pd.isna(features[column].values.astype(object)).any():
            raise ValueError(f"every clip needs its {column}: drop clips without one, or name it in a CSV file")
    y = features["label"].values.astype(object)
    table = pd.DataFrame({"label": y, "speaker": identity.unified(features["speaker"].values)})
    if len(set(y)) < 2:
        raise ValueError(f"a head needs two classes or more, and all clips are {y[0]}")
    numbers = [name for name in set(y) if not isinstance(name, str)]
    if numbers:
        raise ValueError(
            f"labels are words, and {numbers[0]!r} is a {type(numbers[0]).__name__}: name the classes first, "
            'clips["label"] = clips["label"].map({0: "angry", …})'
        )
    speakers = table["speaker"].nunique()
    if folds < 3:
        raise ValueError(
            f"{folds} folds are too few: while one is left out, the layer is chosen on the others, which takes two of them "
            "or more, so folds=3 is the least"
        )
    if speakers < folds:
        advice = "give more speakers" if speakers < 3 else f"give more speakers, or folds={speakers}"
        raise ValueError(f"{folds} folds need as many speakers, and there are {speakers}: {advice}")
    return y, table
