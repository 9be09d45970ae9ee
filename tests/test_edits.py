from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xai_lib import hooks
from xai_lib.edits import FRAMES, MODES, directions, edit

HIDDEN = torch.tensor([[[1.0, -9.0, 2.0], [4.0, 1.0, 3.0], [-5.0, 2.0, 3.5], [0.5, 8.0, -1.0]]])  # [1, 4, 3]
OTHER = torch.tensor([[1.5, 2.5, 3.5], [6.0, 7.0, 8.0], [-6.0, -7.0, -8.0], [0.1, 0.2, 0.3], [9.0, 9.0, 9.0]])
NEEDS = {"values": OTHER, "means": [7.0, 8.0, 9.0], "stds": [1.0, 2.0, 3.0], "speech": [False, True, True, False]}


def test_edit_modes_set_expected_values():
    """An edit flips neurons, zeroes them or sets them to their means, for one, several or all."""
    assert torch.equal(edit(1)(HIDDEN)[..., 1], -HIDDEN[..., 1])
    assert (edit([0, 2], "zero")(HIDDEN)[..., [0, 2]] == 0).all()
    assert (edit([2, 0], "mean", means=NEEDS["means"])(HIDDEN)[..., 0] == 7).all()
    assert (edit("all", "zero")(HIDDEN) == 0).all()


def test_edit_noise_has_given_scale_and_seed():
    """Noise is added with mean zero and `scale` times the given SDs, and is the same for the same seed only."""
    hidden = torch.full((1, 20_000, 3), 5.0)
    noisy = edit([0, 2], "noise", stds=NEEDS["stds"], scale=2.0)
    added = (noisy(hidden) - hidden)[0]  # to what was there
    assert added.std(dim=0).tolist() == pytest.approx([2, 0, 6], rel=0.03)
    assert added.mean(dim=0).tolist() == pytest.approx([0, 0, 0], abs=0.2)
    assert torch.equal(noisy(hidden), noisy(hidden))
    assert not torch.equal(noisy(hidden), edit([0, 2], "noise", stds=NEEDS["stds"], scale=2.0, seed=1)(hidden))


def test_edit_cuts_repeats_or_stretches_donors():
    """Resampling cuts or repeats a donor to the length of the clip; patching stretches it, also at given frames."""

    def first(mode, n):
        return edit(0, mode, values=OTHER[:n])(HIDDEN)[0, :, 0].tolist()

    assert first("resample", 5) == pytest.approx([1.5, 6, -6, 0.1])
    assert first("resample", 3) == pytest.approx([1.5, 6, -6, 1.5])
    assert first("patch", 3) == pytest.approx([1.5, 6, 6, -6])
    assert first("patch", 5) == pytest.approx([1.5, 6, 0.1, 9])
    assert first("patch", 1) == [1.5] * 4
    here = edit([0, 2], "patch", values=OTHER, frames=[1])(HIDDEN)
    assert torch.equal(here[0, 1], torch.tensor([6.0, 1.0, 8.0])) and torch.equal(
        here[0, [0, 2, 3]], HIDDEN[0, [0, 2, 3]]
    )
    assert torch.equal(edit("all", "patch", values=HIDDEN[0])(HIDDEN), HIDDEN)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "noise"])
def test_edit_takes_directions_like_neurons(mode):
    """Editing unit vectors equals editing neurons, a flip negates only the directions given, and noise is refused."""
    unit = np.eye(3)[:, [0, 2]]
    for frames in FRAMES:
        told = {"frames": frames, "n_peaks": 2, **NEEDS}
        assert torch.allclose(edit(unit, mode, **told)(HIDDEN), edit([0, 2], mode, **told)(HIDDEN), atol=1e-6)
    (basis,) = directions(3, 2, 1, seed=4)
    turned = HIDDEN @ torch.as_tensor(np.linalg.qr(basis, "complete")[0], dtype=torch.float32)
    out = edit(basis, "flip")(HIDDEN)
    again = out @ torch.as_tensor(np.linalg.qr(basis, "complete")[0], dtype=torch.float32)
    assert torch.allclose(again[..., :2], -turned[..., :2], atol=1e-5)
    assert torch.allclose(again[..., 2], turned[..., 2], atol=1e-5)
    with pytest.raises(ValueError, match="mode 'noise' takes neurons, not directions"):
        edit(basis, "noise", stds=NEEDS["stds"])


def test_directions_are_orthonormal():
    """Random directions are different sets of orthonormal vectors."""
    sets = directions(20, 6, 3, seed=1)
    assert len(sets) == 3 and not np.allclose(sets[0], sets[1])
    for basis in sets:
        np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-12)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ("max_frame", [[0, 1], [2, 0]]),  # each neuron where its magnitude is largest
        ("peak_frames", [[0, 0], [0, 1], [3, 0], [3, 1]]),  # |·| sums 10, 5, 7, 8.5
        ("speech", [[1, 0], [1, 1], [2, 0], [2, 1]]),
        ([3], [[3, 0], [3, 1]]),
        ([], []),
    ],
)
def test_edit_changes_only_chosen_frames(frames, expected):
    """An edit changes only the frame of greatest magnitude, the peak frames, speech or the frames given."""
    changed = edit([0, 1], "flip", frames=frames, n_peaks=2, speech=NEEDS["speech"])(HIDDEN) != HIDDEN
    assert changed[0].nonzero().tolist() == sorted(expected)


def test_edit_window_adds_neighbouring_frames():
    """A window of one adds the frames on both sides of those given, and changes no other neuron."""
    changed = edit(0, frames=[0, 3], window=1)(torch.ones(1, 9, 2)) < 0
    assert changed[0, :, 0].nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert not changed[..., 1].any()


def test_edit_finds_peaks_of_each_row():
    """Each row of a batch is edited at its own greatest or peak frames."""
    both = torch.cat([HIDDEN, HIDDEN.flip(1)])
    for frames in ("max_frame", "peak_frames"):
        edited = edit([0, 1], frames=frames, n_peaks=1)(both)
        assert torch.equal(edited[1], edited[0].flip(0))


@given(
    mode=st.sampled_from(MODES),
    frames=st.sampled_from(FRAMES),
    window=st.integers(0, 5),
    neurons=st.sets(st.integers(0, 2)),
    seed=st.integers(0, 9),
)
def test_edit_leaves_other_neurons_unchanged(mode, frames, window, neurons, seed):
    """An edit leaves other neurons and its input unchanged; a flip keeps norms and is its own inverse."""
    hidden = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed))
    before = hidden.clone()
    function = edit(sorted(neurons), mode, frames=frames, window=window, **NEEDS)
    out = function(hidden)
    rest = [n for n in range(3) if n not in neurons]
    assert torch.equal(out[..., rest], before[..., rest])
    assert torch.equal(hidden, before)  # the input is not written to
    if mode == "flip":
        assert torch.equal(function(out), before)  # twice is the identity
        assert torch.equal(out.norm(dim=-1), before.norm(dim=-1))  # energy is kept where the edit is made
    if frames == "all" and mode != "noise" and neurons:
        assert not torch.equal(out, before)


def test_edit_changes_only_chosen_neurons_in_model(tiny, wave):
    """In a model, flipping two neurons at their greatest frames changes one value of each and no others."""
    model = tiny()
    with torch.no_grad(), hooks.capture(model, 2) as clean:
        model.logits(model.tensor(wave))
    with torch.no_grad(), hooks.edit(model, {hooks.Site(2): edit([3, 5], frames="max_frame")}):
        with hooks.capture(model, 2) as flipped:
            model.logits(model.tensor(wave))
    changed = (clean[hooks.Site(2)] != flipped[hooks.Site(2)])[0].cpu().numpy()
    assert sorted(np.flatnonzero(changed.any(0))) == [3, 5]
    assert changed.sum() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "explode"}, "unknown mode 'explode': the modes are flip"),
        ({"frames": "some"}, "unknown frames 'some'"),
        ({"mode": "mean"}, "means= is needed for mean"),
        ({"mode": "noise"}, "stds= is needed for noise"),
        ({"mode": "patch"}, "values= is needed for patch"),
        ({"frames": [2.5]}, "frames must be whole numbers, not float64"),
        ({"frames": [False, True]}, r"for a mask give np.flatnonzero\(mask\)"),
        ({"frames": "speech"}, "speech= is needed for frames='speech'"),
        ({"window": -1}, "window must be 0 or more"),
    ],
)
def test_edit_refuses_bad_options(options, message):
    """An edit refuses unknown modes, unsuitable frames or neurons and missing statistics, and says what is needed."""
    with pytest.raises(ValueError, match=message):
        edit(0, **options)
    with pytest.raises(ValueError, match="neurons must be whole numbers, not bool"):
        edit(np.array([False, True]))


@pytest.mark.parametrize(
    ("neurons", "options", "message"),
    [
        (3, {}, "neuron 3 out of range: this site has 0–2"),
        (0, {"frames": [4]}, "frame 4 out of range: the clip has 0–3"),
        (0, {"frames": "speech", "speech": [True]}, "the speech mask has"),
    ],
)
def test_edit_refuses_choices_out_of_range(neurons, options, message):
    """An edit refuses neurons and frames out of range and a speech mask of another length."""
    with pytest.raises(ValueError, match=message):
        edit(neurons, **options)(HIDDEN)
