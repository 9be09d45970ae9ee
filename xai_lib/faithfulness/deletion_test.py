"""Deletion test: the loss of the target when the frames of greatest attribution are silenced, against controls."""

from functools import partial

import numpy as np
import torch
import xarray as xr
from scipy.stats import rankdata

from .. import audio, execution, results, targets
from ..activations import require_named_frames
from ..attribution.gradientshap import one_clip
from ..corpora import as_clips


def gate(waveform, keep, *, window=0.02, sample_rate=16_000, fade=0.004) -> np.ndarray:
    """Silence all frames of a waveform [time] but those in `keep` [frame]; edges are faded, in seconds."""
    gain = np.repeat(np.asarray(keep, float), round(window * sample_rate))[: len(waveform)]
    gain = np.pad(gain, (0, len(waveform) - len(gain)), mode="edge")
    ramp = np.hanning(2 * (round(fade * sample_rate) // 2) + 3)
    smooth = np.convolve(np.pad(gain, len(ramp) // 2, mode="edge"), ramp / ramp.sum(), mode="valid")
    return (waveform * smooth).astype(np.float32)


@torch.no_grad()
def frame_deletion(
    model,
    clips,
    shap,
    *,
    target,
    share=0.2,
    frames="speech",
    n=10,
    scale="log_odds",
    seed=0,
    batch=16,
    sample_rate=None,
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
    clips = as_clips(clips, sample_rate)
    targets.check(model, target, scale)
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, not {share}")
    require_named_frames(frames)
    clips, rows, skipped = clips.loc[shap["clip"].values], {}, {}
    for index, waveform in model.stream(clips):
        clip, rng = one_clip(shap, index), np.random.default_rng(targets.key(seed, index, targets.SEED_FRAME_DELETION))
        pool = np.flatnonzero(clip["speech"] > 0.5) if frames == "speech" else np.arange(clip.sizes["frame"])
        if len(pool) == 0:
            skipped[index] = "no speech was found in it: use frames='all'"
            continue
        masks = deletion_masks(clip["attribution"].values, clip["level"].values, pool, share, n, rng)
        gated = partial(gate, waveform, window=shap.attrs["window"], sample_rate=model.sample_rate)
        waves = torch.cat([model.tensor(gated(~mask)) for mask in masks])
        logits = execution.forward(model, waves, batch)
        values = targets.value(model, logits, targets.resolve(model, target, logits[:1]), scale).double().cpu().numpy()
        drop = values[0] - values[1:]
        rows[index] = [drop[0], drop[1], drop[2 : 2 + n].mean(), drop[2 + n :].mean()]
    if not rows:
        raise audio.NoClips(skipped)
    coords = {**results.coordinates(clips, rows), "mode": ["top", "loudest", "shifted", "random"]}
    attrs = {"method": "frame_deletion", "share": share, "frames": frames, "n": n, "scale": scale, "seed": seed}
    attributes = results.attributes(model, skipped, **attrs)
    return xr.DataArray(np.array(list(rows.values())), coords, ("clip", "mode"), "drop", attributes)


def deletion_masks(attribution, level, pool, share, n, rng):
    """Return masks of silenced frames, [3 + 2n, frame], within `pool`: none, top, loudest, n × shifted, n × random."""
    size, count = len(pool), max(round(share * len(pool)), 1)
    top, loudest = (rankdata(-values[pool], method="ordinal") <= count for values in (attribution, level))
    shifted = [np.roll(top, rng.integers(1, max(size, 2))) for _ in range(n)]
    masks = np.zeros((3 + 2 * n, len(level)), bool)
    masks[1:, pool] = [top, loudest, *shifted, *(rng.permutation(top) for _ in range(n))]
    return masks
