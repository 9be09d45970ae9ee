"""What is explained: a class or a contrast of two, on a scale; and how results name their clips."""

import json
from zlib import crc32

import numpy as np
import pandas as pd
import torch
import xarray as xr

from . import statistics

SCALES = ("logit", "log_odds", "probability")

# Texts that seed the random numbers of `key`. Results depend on each text, so none is ever changed: what is renamed
# elsewhere keeps its text here.
SEED_NOISE = "noise"  # edits by noise, in sweeps, in exhaustive ablation and in inversion
SEED_COURSE = "course"  # orders in which a clip's pieces are shuffled
SEED_DECODERS = "decoders"  # frames of a clip that decoders are fitted on
SEED_FRAME_DELETION = "frame_deletion"  # frames silenced as controls
SEED_GRADIENT_SHAP = "gradient_shap"  # baselines and points of the paths
SEED_SEGMENT_RESPONSE = "segment_response"  # noise in place of a segment


def check(model, target, scale="logit") -> None:
    """Refuse an untrained head (UntrainedHead), an unknown class or scale (ValueError) before any computation."""
    model.require_trained()
    if scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}: the scales are {', '.join(SCALES)}")
    _require_scale(model, scale)
    resolve(model, target, torch.zeros(1, len(model.labels)))


def resolve(model, target, logits) -> tuple[int, ...]:
    """Class indices (c,), or (a, b) of a contrast; "predicted" is the clip's own, from its logits [1, label]."""
    if isinstance(target, str) and target == "predicted" and target not in model.labels:
        return (int(logits[0].argmax()),)
    classes = target if isinstance(target, (tuple, list)) else (target,)
    if not 1 <= len(set(classes)) == len(classes) <= 2:
        raise ValueError(f'target is a class, a pair such as ("angry", "calm"), or "predicted", not {target!r}')
    return tuple(model.target(name) for name in classes)


def _require_scale(model, scale):
    """ValueError where outputs that are numbers, of a regression, are asked for on a scale of probabilities."""
    if model.outputs == "numbers" and scale != "logit":
        raise ValueError(
            f"the outputs of {model.name} are numbers (a regression), which have no {scale}: scale='logit' takes them as "
            "they are"
        )


def require_one_label(model) -> None:
    """ValueError where a model does not give one label of several, on which a method rests."""
    if model.outputs != "one label":
        raise ValueError(
            f"{model.name} gives {model.outputs} for a clip, and this needs a model that gives one label of several"
        )


def value(model, logits, classes, scale="logit") -> torch.Tensor:
    """The number that is explained, [batch], from logits [batch, label].

    A class's logit, its log odds against all others, or its probability; of a pair, the difference of the two
    (of their logits, which is the log odds between them, or of their probabilities). Where a clip can have several labels,
    each has a probability of its own, and its logit is its log odds. ValueError where outputs are numbers, which have
    neither.
    """
    _require_scale(model, scale)
    numbers = model.scores(logits) if scale == "probability" else logits
    if len(classes) == 2:
        return numbers[:, classes[0]] - numbers[:, classes[1]]
    if scale == "log_odds" and model.outputs == "one label":
        others = [c for c in range(logits.shape[-1]) if c != classes[0]]
        return logits[:, classes[0]] - torch.logsumexp(logits[:, others], dim=-1)
    return numbers[:, classes[0]]


def name(model, classes) -> str:
    """ "angry", or "angry − calm"."""
    return " − ".join(model.labels[c] for c in classes)


def coordinates(clips: pd.DataFrame, index, **more) -> dict:
    """Coordinates of the dim `clip`: the index, what the corpus knows of each clip, and `more` by name."""
    rows = clips.loc[list(index)]
    units = "speaker" if "speaker" in rows else "source"
    known = [column for column in ("label", units, "sex", "intensity", "statement") if column in rows]
    coords = {column: ("clip", rows[column].astype(object).to_numpy()) for column in known}
    return {"clip": rows.index.to_numpy(), **coords, **{key: ("clip", values) for key, values in more.items()}}


def heard(data) -> str:
    """Whose clips a table, or a result [clip, …], is of, as JSON: speakers, or recordings where those are not known."""
    known = data.coords if isinstance(data, xr.DataArray) else data
    names = next((known[name] for name in ("speaker", "source") if name in known), [])
    return json.dumps(sorted({str(name) for name in np.asarray(names)}))


def key(seed, index, name) -> tuple[int, int]:
    """Key of a clip's own random numbers, whichever other clips are asked for; `name` is one of the texts above."""
    return seed, crc32(f"{name} {index}".encode())


def axes(sites, values) -> dict:
    """Coordinates of the dims `layer` and `neuron` of an array [..., neuron]."""
    return {"layer": [site.layer for site in sites], "neuron": np.arange(values.shape[-1])}


def speakers_known(data) -> bool:
    """Whether every clip of a result has its speaker."""
    return "speaker" in data.coords and not pd.isna(data["speaker"].values).any()


def activity(data) -> xr.DataArray:
    """The `activation` of what `activations.activations` gives, or the array that it is already."""
    if isinstance(data, xr.Dataset) and "activation" not in data:
        raise ValueError(f"activations are needed, and this result holds {', '.join(map(str, data))}")
    return data["activation"] if isinstance(data, xr.Dataset) else data


def units(data: xr.DataArray) -> xr.DataArray:
    """One value per speaker, dim `speaker`, the clips of each averaged; where not all are known, `clip` stays."""
    return statistics.by_speaker(data) if speakers_known(data) else data


def average(data: xr.DataArray) -> xr.DataArray:
    """Mean over speakers, the clips of each averaged first; over clips where not all speakers are known."""
    values = units(data)
    return values.mean("speaker" if "speaker" in values.dims else "clip")


def attributes(model, skipped, **options) -> dict:
    """How a result was made, flat and fit for netCDF."""
    return {"model": model.name, **options, "skipped": json.dumps({str(k): v for k, v in skipped.items()})}


def padded(rows) -> np.ndarray:
    """Arrays of unequal length, [frame] or [draw, frame] or [segment, layer, neuron], as one; NaN beyond each."""
    shape = [max(sizes) for sizes in zip(*(row.shape for row in rows))]
    out = np.full((len(rows), *shape), np.nan, dtype=np.float32)
    for place, row in enumerate(rows):
        out[(place, *map(slice, row.shape))] = row
    return out
