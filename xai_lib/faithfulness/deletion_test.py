"""Deletion test: the loss of the target when the frames of greatest attribution are silenced, against controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from .. import audio, execution, results, targets
from ..activations import require_named_frames
from ..attribution.gradientshap import one_clip
from ..corpora import as_clips
from ..models import require_model

if TYPE_CHECKING:
    from ..models import Model

MODES = ("top", "loudest", "shifted", "random")  # frames that are silenced: the top ones, and their controls


def gate(
    waveform: np.ndarray, keep: ArrayLike, *, window: float = 0.02, sample_rate: int = 16_000, fade: float = 0.004
) -> np.ndarray:
    """Silence all frames of a waveform [time] but those in `keep` [frame]; edges are faded, in seconds."""
    gain = np.repeat(np.asarray(keep, float), round(window * sample_rate))[: len(waveform)]
    gain = np.pad(gain, (0, len(waveform) - len(gain)), mode="edge")  # the last frame takes the remaining samples

    half = round(fade * sample_rate) // 2
    ramp = np.hanning(2 * half + 3)
    padded = np.pad(gain, len(ramp) // 2, mode="edge")
    smooth = np.convolve(padded, ramp / ramp.sum(), mode="valid")
    return (waveform * smooth).astype(np.float32)


@torch.no_grad()
def frame_deletion(
    model: Model,
    clips,
    shap: xr.Dataset,
    *,
    target: str | int | Sequence[str | int],
    share: float = 0.2,
    frames: str = "speech",
    n: int = 10,
    scale: str = "log_odds",
    seed: int = 0,
    batch: int = 16,
    sample_rate: int | None = None,
) -> xr.DataArray:
    """Measure how much the target falls when a share of the frames is silenced: the top ones, against controls.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    shap : Dataset
        As returned by `gradient_shap` for these clips.
    share : float
        Share of the eligible frames that is silenced.
    frames : str
        Eligible frames: "speech" (more than half of a frame), or "all". Silencing a pause costs nothing, so controls
        that may fall into pauses are beaten by any attribution that only finds the speech.
    n : int
        Draws of each random control.

    Returns
    -------
    DataArray [clip, mode], in units of the scale
        Clean minus silenced. `top`: the frames of greatest attribution. Controls of as many of the same frames:
        `loudest`, which asks whether attribution knows more than energy; `shifted`, the top frames moved along these
        frames in a circle, so that they stay as clustered as they are; `random`. The last two are means over `n` draws.
        Clips without speech are in attrs["skipped"].
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    targets.check(model, target, scale)
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, not {share}")
    require_named_frames(frames)
    clips = clips.loc[shap["clip"].values]
    skipped = {}
    rows = {}
    for index, waveform in model.stream(clips):
        clip = one_clip(shap, index)
        eligible = clip["speech"].values > 0.5 if frames == "speech" else np.ones(clip.sizes["frame"], bool)
        pool = np.flatnonzero(eligible)
        if len(pool) == 0:
            skipped[index] = "no speech was found in it: use frames='all'"
            continue
        rng = np.random.default_rng(targets.key(seed, index, targets.SEED_FRAME_DELETION))
        masks = deletion_masks(clip["attribution"].values, clip["level"].values, pool, share, n, rng)
        values = _values_without(model, waveform, masks, shap.attrs["window"], target, scale, batch)
        drops = values[0] - values
        modes = _mask_modes(n)
        rows[index] = [drops[modes == mode].mean() for mode in MODES]
    if not rows:
        raise audio.NoClips(skipped)

    attrs = {"method": "frame_deletion", "share": share, "frames": frames, "n": n, "scale": scale, "seed": seed}
    return xr.DataArray(
        np.array(list(rows.values())),
        {**results.coordinates(clips, rows), "mode": list(MODES)},
        ("clip", "mode"),
        "drop",
        results.attributes(model, skipped, **attrs),
    )


def deletion_masks(
    attribution: np.ndarray, level: np.ndarray, pool: np.ndarray, share: float, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Return masks of silenced frames, [3 + 2n, frame], within `pool`: none, top, loudest, n × shifted, n × random."""
    n_silenced = max(round(share * len(pool)), 1)
    top = _greatest(attribution[pool], n_silenced)
    loudest = _greatest(level[pool], n_silenced)
    shifted = [np.roll(top, rng.integers(1, max(len(pool), 2))) for _ in range(n)]
    shuffled = [rng.permutation(top) for _ in range(n)]
    masks = np.zeros((3 + 2 * n, len(level)), bool)
    masks[1:, pool] = [top, loudest, *shifted, *shuffled]
    return masks


def _mask_modes(n):
    """Return which of MODES each of the `deletion_masks` is; the first is "none"."""
    return np.array(["none", "top", "loudest", *["shifted"] * n, *["random"] * n])


def _greatest(values, n):
    """Return which of the values are the `n` greatest; of equal ones the first."""
    return rankdata(-values, method="ordinal") <= n


def _values_without(model, waveform, masks, window, target, scale, batch):
    """Return the target's value [mask] with the frames of each mask silenced; the first mask is of none.

    The frames are `window` seconds long. A target of "predicted" is the prediction for the first mask.
    """
    waves = [model.tensor(gate(waveform, ~mask, window=window, sample_rate=model.sample_rate)) for mask in masks]
    logits = execution.forward(model, torch.cat(waves), batch)
    classes = targets.resolve(model, target, logits[:1])
    return targets.value(model, logits, classes, scale).double().cpu().numpy()
