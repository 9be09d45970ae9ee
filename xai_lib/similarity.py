"""How well concepts fit neurons, from how well they fit clips.

Each function takes how well every clip fits every concept [clip, concept], the activations [clip, neuron] and each
neuron's strongest clips, strongest first, [rank, neuron]; it returns [neuron, concept].
"""

from __future__ import annotations

import numpy as np


def cosine(fits, values, order=None) -> np.ndarray:
    """Cosine of activations and fits, both centred over clips."""
    unit = [x - x.mean(0) for x in (values, fits)]
    unit = [x / np.maximum(np.linalg.norm(x, axis=0), 1e-12) for x in unit]
    return unit[0].T @ unit[1]


def soft_wpmi(fits, values, order, *, a=10.0, lam=1.0, start=0.998, stop=0.97) -> np.ndarray:
    """Soft weighted pointwise mutual information, over all neurons jointly.

    The sum over the clips of rank k of log(1 + p_k (s - 1)), where s is the softmax of `a` times the fits over
    concepts and p_k falls from `start` to `stop`; less `lam` times the log of its exponential's mean over neurons.

    References
    ----------
    Oikarinen and Weng (2023), CLIP-Dissect, ICLR, and its code: a = 10, lambda = 1, p from 0.998 to 0.97.
    """
    probability = np.exp(a * (fits - fits.max(1, keepdims=True)))
    probability /= probability.sum(1, keepdims=True)
    log = np.zeros((order.shape[1], fits.shape[1]))
    for rank, clips in enumerate(order):
        member = start - rank / len(order) * (start - stop)
        log += np.log(1 + member * (probability[clips] - 1) + 1e-7)
    top = log.max(0)
    return log - lam * (np.log(np.exp(log - top).mean(0)) + top)


SIMILARITIES = {"cosine": cosine, "soft_wpmi": soft_wpmi}
