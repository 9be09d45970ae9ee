"""What silencing the top frames costs, against controls; exact where the model is linear."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from xai_lib.attribution.gradientshap import gradient_shap as shap
from xai_lib.faithfulness.deletion_test import deletion_masks, frame_deletion, gate


@pytest.fixture
def clips(swelling_clips):
    return swelling_clips


def test_gate_silences_frames_with_fades():
    """`gate` silences the frames left out, with symmetric fades of complements that sum to 1, or hard edges."""
    wave = np.ones(1000, np.float32)
    assert np.allclose(gate(wave, [True] * 3), 1) and np.abs(gate(wave, [False] * 3)).max() == 0
    middle = gate(wave, [False, True, False])
    assert middle[480] == pytest.approx(1) and middle[200] == middle[800] == 0
    assert np.abs(np.diff(middle)).max() < 0.05 and len(middle) == 1000
    assert np.allclose(middle + gate(wave, [True, False, True]), 1, atol=1e-6)
    sides = gate(np.ones(960, np.float32), [False, True, False])  # neither early nor late
    assert np.allclose(sides, sides[::-1], atol=1e-6)
    assert sides[319] + sides[320] == pytest.approx(1, abs=1e-5)
    hard = gate(wave, [False, True, False], fade=0)
    assert np.allclose(hard[322:638], 1) and np.abs(hard[:318]).max() == 0


def test_frame_deletion_costs_most_at_top(linear, clips):
    """Silencing the top frames costs about their attribution and more than any control, in batches of any size."""
    found = shap(linear, clips, target="angry", n=2, steps=1, baseline="silence")
    drop = frame_deletion(linear, clips, found, target="angry", share=0.3, frames="all", n=6, scale="logit")
    assert drop.dims == ("clip", "mode") and drop["speaker"].values.tolist() == ["s0", "s1"]
    for place in range(2):
        one = drop.isel(clip=place)
        best = np.sort(found["attribution"][place].dropna("frame").values)[::-1]
        expected = best[: round(0.3 * len(best))].sum()
        assert one.sel(mode="top").item() == pytest.approx(expected, rel=0.3)
        assert one.sel(mode="top") > max(one.sel(mode=mode) for mode in ("loudest", "shifted", "random"))
    again = frame_deletion(linear, clips, found, target="angry", share=0.3, frames="all", n=6, scale="logit", batch=2)
    assert np.allclose(drop, again, atol=1e-3)
    with pytest.raises(ValueError, match="share must be"):
        frame_deletion(linear, clips, found, target="angry", share=1.5)
    with pytest.raises(ValueError, match="unknown frames"):
        frame_deletion(linear, clips, found, target="angry", frames="loud")


def test_frame_deletion_controls_stay_in_speech(linear, tmp_path):
    """Controls within speech cost their share of the speech's energy; among all frames they fall into pauses."""
    wave = np.zeros(16400, np.float32)  # 51 frames
    wave[6400:9600] = 0.3 * np.random.default_rng(0).standard_normal(3200)
    soundfile.write(tmp_path / "speech.wav", wave, 16000, subtype="FLOAT")
    clips = pd.DataFrame({"path": [str(tmp_path / "speech.wav")], "label": "angry", "speaker": "s0"})
    linear.weights[:, 1] = 100 * torch.as_tensor(np.pad(wave, (0, 3600)))  # each frame is worth its energy
    found = shap(linear, clips, target="angry", n=2, steps=1, baseline="silence")
    worth, count = found["attribution"].values[0], int((found["speech"].values[0] > 0.5).sum())
    assert 8 <= count <= 14
    options = {"target": "angry", "share": 0.4, "n": 40, "scale": "logit"}
    drop = frame_deletion(linear, clips, found, **options).isel(clip=0)
    expected = worth.sum() * round(0.4 * count) / count
    for mode in ("shifted", "random"):
        assert drop.sel(mode=mode).item() == pytest.approx(expected, rel=0.15)
    anywhere = frame_deletion(linear, clips, found, **options, frames="all").isel(clip=0)
    assert anywhere.sel(mode="random").item() == pytest.approx(0.4 * worth.sum(), rel=0.15)  # as large a share of all
    best = np.sort(worth)[::-1][: round(0.4 * count)].sum()
    assert drop.sel(mode="top").item() == pytest.approx(best, rel=0.15) and best < 0.7 * worth.sum()
    assert anywhere.sel(mode="top").item() == pytest.approx(worth.sum(), rel=0.02)


@given(st.integers(1, 40), st.floats(0.05, 0.95), st.integers(0, 9))
def test_deletion_masks_silence_equal_counts(size, share, seed):
    """After an empty mask, all silence equally many eligible frames: the top, the loudest, shifted or random ones."""
    rng = np.random.default_rng(seed)
    pool = np.sort(rng.permutation(60)[:size])
    attribution, level = rng.standard_normal((2, 60))
    masks = deletion_masks(attribution, level, pool, share, 5, rng)
    count = max(round(share * size), 1)
    assert masks.shape == (13, 60) and not masks[0].any() and (masks[1:].sum(axis=1) == count).all()
    assert not masks[:, np.setdiff1d(np.arange(60), pool)].any()
    for mask, values in ((masks[1], attribution), (masks[2], level)):
        assert set(np.flatnonzero(mask)) == set(pool[np.argsort(-values[pool])[:count]])
    turns = [np.roll(masks[1, pool], step).tolist() for step in range(size)]
    assert all(mask[pool].tolist() in (turns[1:] or turns) for mask in masks[3:8])  # never where they were


def test_frame_deletion_skips_clip_without_speech(linear, clips):
    """A clip without speech is skipped and reported; if no clip is left, an error is raised."""
    found = shap(linear, clips, target="angry", n=2, steps=1)
    found["speech"][0] = 0
    drop = frame_deletion(linear, clips, found, target="angry")
    assert drop["clip"].values.tolist() == [1] and "no speech" in drop.attrs["skipped"]
    found["speech"][1] = 0
    with pytest.raises(ValueError, match="no clip could be used"):
        frame_deletion(linear, clips, found, target="angry")
