"""Emotion heads on frozen features: fitted, evaluated on unseen speakers, saved as Hugging Face checkpoints."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from ..models import require_model
from ..models.architectures.wavlm import WavLM
from ..statistics import restricted_permutations, uar
from .extraction import activations

if TYPE_CHECKING:
    from ..models import Model

RECORDINGS_COMPARED = 20  # recordings per speaker that are compared with those of the encoder


def features(
    model: Model, clips: Any, *, layers: str | int | Sequence[int] = "all", sample_rate: int | None = None
) -> xr.DataArray:
    """Average each layer's output over all frames, [clip, layer, neuron]: what a head that averages over frames reads.

    `clips` need `label` and `speaker`, to fit on. Those that could not be read are named in `attrs["skipped"]` (JSON).
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    pooled = activations(model, clips, model.sites("hidden_state", layers), frames="all")
    return pooled["activation"].rename("features").assign_attrs(pooled.attrs)


def cross_validate(
    features: xr.DataArray, *, folds: int = 5, shuffles: int = 5, C: float = 0.1, seed: int = 0
) -> xr.Dataset:
    """Cross-validate a linear head, with disjoint speakers, on each layer and on the layer that each fold selects.

    Parameters
    ----------
    features : DataArray [clip, layer, neuron]
        As returned by `features`, with `label` and `speaker`.
    folds : int
        No speaker is in two of them. The layer is selected within the training speakers of a fold, so that `uar` is not
        inflated by the selection; `uar_layer` is without a selection, layer by layer.
    shuffles : int
        Number of controls: cross-validations with labels shuffled within speakers.
    C : float
        Inverse strength of the L2 penalty.

    Returns
    -------
    Dataset
        `predicted` [clip], `uar` (all clips), `uar_speaker` [speaker_name], `uar_layer` [layer], `uar_shuffled`
        [shuffle], `confusion` [label_name, predicted_label] (counts), `selected` [fold] (layers), `chance`.

    Raises
    ------
    ValueError
        A clip lacks its label or speaker, there is only one class, or there are fewer speakers than folds.
    """
    y, table = _labelled(features, folds)
    split = sampling.folds(table, folds, seed=seed).to_numpy()
    x = features.values
    layers = features["layer"].values
    names = ordered(y)

    uar_layer = []
    for i in tqdm(range(len(layers)), "layers", leave=False, delay=2):
        uar_layer.append(uar(y, _predict(x[:, i], y, split, C)))

    predicted = np.empty(len(y), dtype=object)
    selected = []
    for fold in tqdm(np.unique(split), "folds", leave=False, delay=2):
        inside = split != fold
        outside = split == fold
        uar_inside = []
        for i in range(len(layers)):
            uar_inside.append(uar(y[inside], _predict(x[inside, i], y[inside], split[inside], C)))
        best = int(np.argmax(uar_inside))
        selected.append(int(layers[best]))
        predicted[outside] = _head(C).fit(x[inside, best], y[inside]).predict(x[outside, best])

    most_frequent = int(np.argmax(np.bincount(np.searchsorted(layers, selected))))
    speaker_rows = list(table.groupby("speaker").indices.values())
    row_orders = restricted_permutations(speaker_rows, shuffles, seed)
    shuffled = []
    for order in tqdm(row_orders, "shuffled labels", shuffles, leave=False, delay=2):
        shuffled_labels = table["label"].to_numpy()[order]
        shuffled.append(uar(shuffled_labels, _predict(x[:, most_frequent], shuffled_labels, split, C)))

    uar_speaker = {}
    for speaker, rows in table.groupby("speaker", sort=False):
        uar_speaker[str(speaker)] = uar(y[rows.index], predicted[rows.index])
    counts = pd.crosstab(y, predicted).reindex(index=names, columns=names, fill_value=0)
    return xr.Dataset(
        {
            "predicted": ("clip", predicted.astype(str)),
            "uar": uar(y, predicted),
            "uar_speaker": ("speaker_name", list(uar_speaker.values())),
            "uar_layer": ("layer", uar_layer),
            "uar_shuffled": ("shuffle", shuffled),
            "confusion": (("label_name", "predicted_label"), counts.to_numpy()),
            "selected": ("fold", selected),
            "chance": 1 / len(names),
        },
        coords={
            "clip": features["clip"].values,
            "label": ("clip", y.astype(str)),
            "speaker": ("clip", table["speaker"].astype(str).to_numpy()),
            "speaker_name": list(uar_speaker),
            "layer": layers,
            "label_name": names,
            "predicted_label": names,
        },
        attrs={"folds": folds, "C": C, "seed": seed, "method": "logistic regression on standardised means over frames"},
    )


def fit(
    model: Model,
    clips: Any,
    folder: str | Path,
    *,
    layers: str | int | Sequence[int] = "all",
    folds: int = 5,
    C: float = 0.1,
    seed: int = 0,
    sample_rate: int | None = None,
) -> tuple[Model, xr.Dataset]:
    """Fit a head on all of `clips`, on the layer that is best in cross-validation, and save encoder and head.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`, or a DataArray as returned by `features`. Leave out the speakers on whom you want to
        explain or test. A warning is given where some are training speakers of the encoder.
    folder : path
        A new folder for `config.json`, `model.safetensors` and `preprocessor_config.json`, which
        `AutoModelForAudioClassification.from_pretrained` and `models.load` open. The metrics are in the config as
        `xai_metrics`, the speakers as `xai_head_train_speakers`. Where `clips` is a DataFrame, `recordings.csv` holds
        the fingerprints of its recordings beside those of the encoder, so that copies under other names are recognised.

    Returns
    -------
    (Model, Dataset)
        The new model, and the cross-validation that selected its layer.

    Raises
    ------
    FileExistsError, ValueError
        There is a model in `folder`; the model is no WavLM; otherwise as `cross_validate`.

    Notes
    -----
    The standardisation is folded into the classifier, the projector is the identity, and the layer is selected by
    `layer_weights`, whose softmax is 1 − 1e-12 there.
    """
    require_model(model)
    folder = Path(folder).expanduser()
    are_features = isinstance(clips, xr.DataArray)
    table = None if are_features else as_clips(clips, sample_rate)
    _require_new_head(model, folder)

    head_features = clips if are_features else features(model, table, layers=layers)
    report = cross_validate(head_features, folds=folds, C=C, seed=seed)
    y, labelled = _labelled(head_features, folds)
    fit_clips = labelled if are_features else table.loc[head_features["clip"].values]
    recordings = _recordings(model, fit_clips)
    _warn_of_training_speakers(model, fit_clips, recordings, float(report["uar"]))

    layer = int(report["layer"].values[np.argmax(report["uar_layer"].values)])
    weight, bias = _fit_linear_map(head_features.sel(layer=layer).values, y, C)
    config = _config_with_head(model.network.config, labelled, layer, report)
    network = _network_with_head(model, config, layer, weight, bias)

    _save(model, network, recordings, folder)
    return models.load(folder, device=str(model.device)), report


def _require_new_head(model, folder):
    """Raise an error where the model can have no such head, or the folder contains a model."""
    if not isinstance(model.architecture, WavLM):
        raise ValueError(
            f"a head can only be fitted to a WavLM, and {model.name} is none: `cross_validate` of its `features` shows "
            "what its layers encode"
        )
    if (folder / "config.json").exists():
        raise FileExistsError(f"there is a model in {folder}: give another folder, or remove it first")


def _warn_of_training_speakers(model, clips, recordings, mean_recall):
    """Warn where the encoder was trained on some of the speakers, whose UAR is not that of unseen ones."""
    encoder_recordings = recordings[recordings["use"] == "trained"]
    states = identity.training_status(clips, model.train_speakers or [], encoder_recordings, most=RECORDINGS_COMPARED)
    n_train_speakers = (states == identity.IN_TRAINING).sum()
    if n_train_speakers:
        warnings.warn(
            f"the encoder was trained on {n_train_speakers} of these {len(states)} speakers, so the UAR of "
            f"{mean_recall:.2f} is not that of unseen speakers: fit on other speakers to measure it",
            stacklevel=3,
        )


def _fit_linear_map(x, y, C) -> tuple[np.ndarray, np.ndarray]:
    """Fit the head on x [clip, neuron]: weight [class, neuron] and bias [class], the standardisation folded in.

    Classes are in the order of `filenames.ordered`.
    """
    head = _head(C).fit(x, y)
    scaler = head.named_steps["standardscaler"]
    regression = head.named_steps["logisticregression"]

    weight = regression.coef_
    bias = regression.intercept_
    if len(weight) == 1:  # with two classes scikit-learn returns only the second's logit
        weight = np.concatenate([-weight / 2, weight / 2])
        bias = np.concatenate([-bias / 2, bias / 2])

    classes = list(regression.classes_)
    order = [classes.index(name) for name in ordered(y)]
    weight = weight[order] / scaler.scale_
    bias = bias[order] - weight @ scaler.mean_
    return weight, bias


def _config_with_head(encoder_config, labelled, layer, report):
    """Return the encoder's configuration with that of the head, its training speakers and its metrics."""
    names = ordered(labelled["label"])
    metrics = {"layer": layer}
    for name in ("uar", "uar_shuffled", "chance"):
        metrics[name] = round(float(report[name].mean()), 4)
    metrics |= {"folds": report.attrs["folds"], "clips": len(labelled), "speakers": int(labelled["speaker"].nunique())}

    config = copy.deepcopy(encoder_config)
    config.update(
        {
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "classifier_proj_size": config.hidden_size,
            "use_weighted_layer_sum": True,
            "problem_type": "single_label_classification",
            "xai_head_train_speakers": sorted({*map(str, labelled["speaker"])}),
            "xai_metrics": metrics,
        }
    )
    return config


def _network_with_head(model, config, layer, weight, bias):
    """Return the encoder's weights with a head that reads one layer, as a network of Transformers."""
    from transformers import AutoModelForAudioClassification

    network = AutoModelForAudioClassification.from_config(config)
    network.base_model.load_state_dict(model.architecture.base.state_dict())
    with torch.no_grad():
        network.projector.weight.copy_(torch.eye(config.hidden_size))
        network.projector.bias.zero_()
        network.classifier.weight.copy_(torch.from_numpy(weight))
        network.classifier.bias.copy_(torch.from_numpy(bias))
        network.layer_weights.zero_()[layer] = 30.0
    return network


def _save(model, network, recordings, folder):
    """Write the network, its preprocessor and the fingerprints of its recordings to a folder."""
    from transformers import Wav2Vec2FeatureExtractor

    network.save_pretrained(folder)
    if len(recordings):
        fingerprints.write(recordings, folder)
    do_normalize = model.preprocessor.get("do_normalize", False)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize, sampling_rate=model.sample_rate)
    extractor.save_pretrained(folder)


def _recordings(model, clips) -> pd.DataFrame:
    """Return the recordings of the encoder and of the clips of the head, as `fingerprints.write` takes them."""
    tables = [pd.DataFrame(columns=fingerprints.COLUMNS)]
    if model.trained_recordings is not None:
        tables.append(model.trained_recordings[model.trained_recordings["use"] != "head"])
    if {"path", "audio"} & set(clips):
        columns = {
            "fingerprint": fingerprints.of_files(audio.sources(clips)),
            "use": "head",
            "speaker": identity.of_clips(clips),
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _head(C):
    """Return the linear head, not fitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))


def _predict(x, y, split, C):
    """Predict the labels of each fold by a head that was fitted on the others."""
    return cross_val_predict(_head(C), x, y, cv=PredefinedSplit(split))


def _labelled(features, folds) -> tuple[np.ndarray, pd.DataFrame]:
    """Return labels, and a table of label and speaker; raise ValueError for what cannot be cross-validated."""
    for column in ("label", "speaker"):
        if column not in features.coords or pd.isna(features[column].values.astype(object)).any():
            raise ValueError(f"every clip needs its {column}: drop clips without one, or add it in a CSV file")
    y = features["label"].values.astype(object)
    table = pd.DataFrame({"label": y, "speaker": identity.unify_spelling(features["speaker"].values)})
    if len(set(y)) < 2:
        raise ValueError(f"a head needs two classes or more, and all clips are {y[0]}")
    non_strings = [name for name in set(y) if not isinstance(name, str)]
    if non_strings:
        raise ValueError(
            f"labels must be strings, and {non_strings[0]!r} is a {type(non_strings[0]).__name__}: name the classes "
            'first, clips["label"] = clips["label"].map({0: "angry", …})'
        )
    speakers = table["speaker"].nunique()
    if folds < 3:
        raise ValueError(
            f"{folds} folds are too few: while one is left out, the layer is selected by cross-validation on the "
            "others, which takes at least two, so use folds=3 or more"
        )
    if speakers < folds:
        advice = "give more speakers" if speakers < 3 else f"give more speakers, or folds={speakers}"
        raise ValueError(f"{folds} folds need at least as many speakers, and there are {speakers}: {advice}")
    return y, table
