"""What is explained: a class or a contrast of two, on a scale; and how results name their clips."""

from zlib import crc32

import torch

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


def key(seed, index, name) -> tuple[int, int]:
    """Key of a clip's own random numbers, whichever other clips are asked for; `name` is one of the texts above."""
    return seed, crc32(f"{name} {index}".encode())
