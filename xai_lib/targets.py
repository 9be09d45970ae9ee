"""Explained quantities: a class or a contrast of two, on a scale; and the seeds of random numbers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

import torch

if TYPE_CHECKING:
    from .models import Model

SCALES = ("logit", "log_odds", "probability")

# Texts that seed the random numbers of `key`. Results depend on each text, so none is ever changed: a method that is
# renamed elsewhere keeps its text here.
SEED_NOISE = "noise"  # edits by noise, in sweeps, in exhaustive ablation and in inversion
SEED_COURSE = "course"  # orders in which a clip's pieces are shuffled
SEED_DECODERS = "decoders"  # frames of a clip that decoders are fitted on
SEED_FRAME_DELETION = "frame_deletion"  # frames silenced as controls
SEED_GRADIENT_SHAP = "gradient_shap"  # baselines and points of the paths
SEED_SEGMENT_RESPONSE = "segment_response"  # noise in place of a segment


def check(model: Model, target: str | int | Sequence, scale: str = "logit") -> None:
    """Raise UntrainedHead for an untrained head, ValueError for an unknown class or scale, before any computation."""
    model.require_trained()
    if scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}: the scales are {', '.join(SCALES)}")
    _require_scale(model, scale)
    resolve(model, target, torch.zeros(1, len(model.labels)))


def resolve(model: Model, target: str | int | Sequence, logits: torch.Tensor) -> tuple[int, ...]:
    """Return class indices (c,), or (a, b) of a contrast, of a class, a pair of classes, or "predicted".

    "predicted" is the class that the model predicts for the clip, from its logits [1, label].
    """
    if isinstance(target, str) and target == "predicted" and target not in model.labels:
        return (int(logits[0].argmax()),)
    classes = target if isinstance(target, (tuple, list)) else (target,)
    twice = len(classes) == 2 and classes[0] == classes[1]
    if isinstance(target, (dict, set)) or twice or len(classes) not in (1, 2):
        raise ValueError(f'target must be a class, a pair such as ("angry", "calm"), or "predicted", not {target!r}')
    return tuple(model.target(name) for name in classes)


def _require_scale(model, scale):
    """Raise ValueError where outputs are numbers, of a regression, and the scale is one of probabilities."""
    if model.outputs == "numbers" and scale != "logit":
        raise ValueError(
            f"the outputs of {model.name} are numbers (a regression), which have no {scale}: use scale='logit', which "
            "takes them as they are"
        )


def require_one_label(model: Model) -> None:
    """Raise ValueError where a model does not give one label of several, which a method requires."""
    if model.outputs != "one label":
        raise ValueError(
            f"{model.name} gives {model.outputs} for a clip, and this needs a model that gives one label of several"
        )


def value(model: Model, logits: torch.Tensor, classes: Sequence[int], scale: str = "logit") -> torch.Tensor:
    """Return the number that is explained, [batch], from logits [batch, label].

    A class's logit, its log odds against all others, or its probability; of a pair, the difference of the two (of their
    logits, which is the log odds between them, or of their probabilities). Where a clip can have several labels, each
    has a probability of its own, and its logit is its log odds. Raises ValueError
    for log odds or a probability of outputs that are numbers.
    """
    _require_scale(model, scale)
    numbers = model.scores(logits) if scale == "probability" else logits
    if len(classes) == 2:
        first, second = classes
        return numbers[:, first] - numbers[:, second]

    (target,) = classes
    if scale == "log_odds" and model.outputs == "one label":
        others = [label for label in range(logits.shape[-1]) if label != target]
        return logits[:, target] - torch.logsumexp(logits[:, others], dim=-1)
    return numbers[:, target]


def name(model: Model, classes: Sequence[int]) -> str:
    """Return the name of a target, "angry" or "angry − calm"."""
    return " − ".join(model.labels[c] for c in classes)


def key(seed: int, index: Hashable, name: str) -> tuple[int, int]:
    """Return the key of a clip's own random numbers, the same whichever other clips are used.

    `name` is one of the texts above.
    """
    return seed, crc32(f"{name} {index}".encode())
