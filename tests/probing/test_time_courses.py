"""Courses in time against hand-made and planted ones."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
from handmade import courses

from xai_lib import audio, hooks, models, targets
from xai_lib.probing import time_courses


def test_course_is_mean_by_position(model, clips):
    """A course is the mean activation and level by position from onset to end of the speech, or of the clip."""
    found = time_courses.course(model, clips, bins=5, layers=[0, 2], part="hidden_state")
    x = audio.read(clips["path"][9])
    at = np.flatnonzero(audio.speech_mask(x))
    span = np.arange(at[0], at[-1] + 1)
    assert 5 < len(span) < 30
    x = np.concatenate(time_courses._pieces(x, at[0] * 320 + 400, at[-1] * 320, 16000))  # faded where it could be cut
    with torch.no_grad(), hooks.capture(model, [0, 2]) as seen:
        model.logits(model.tensor(x))
    rms = audio.features(torch.from_numpy(x), names=("rms",))["rms"].numpy()
    for place, part in enumerate(np.array_split(span, 5)):
        for layer in (0, 2):
            by_hand = seen[model.check(layer)][0, part].mean(dim=0).cpu().numpy()
            assert np.allclose(found["activation"].sel(clip=9, layer=layer)[place], by_hand, atol=1e-5)
        level = np.maximum(20 * np.log10(rms[part]), -80).mean()
        assert found["level"].sel(clip=9)[place] == pytest.approx(level, abs=1e-3)
    assert np.allclose(found["position"], [0.1, 0.3, 0.5, 0.7, 0.9])
    whole = time_courses.course(model, clips, bins=5, layers=[0, 2], frames="all")
    assert not np.allclose(whole["activation"], found["activation"], atol=1e-3)
    assert whole["level"].values[:, 0].max() < found["level"].values[:, 0].min()  # the silent ends


def test_course_skips_short_clips(tiny, clips):
    """Clips with fewer frames than bins are listed as skipped; if none is left, `course` raises ValueError."""
    found = time_courses.course(tiny("base"), clips, bins=26, frames="all")
    assert found["clip"].values.tolist() == [9] and "24 frames are fewer than 26 bins" in found.attrs["skipped"]
    with pytest.raises(ValueError, match="24 frames are fewer than 99 bins"):
        time_courses.course(tiny("base"), clips, bins=99, frames="all")


@pytest.mark.parametrize("n", [9, 16])
def test_consistency_finds_planted_courses(n):
    """A planted course is significant; beyond the level it stays so, and one that is loudness does not."""
    rng = np.random.default_rng(1)
    level = rng.standard_normal((n, 10)) + 2 * np.sin(np.arange(10))  # much the same in all speakers
    own, noise = rng.standard_normal(10), rng.standard_normal((n, 10))
    values = np.stack([own + 0.5 * noise, 3 * level + 5, noise, np.full((n, 10), 7.0), 3 * level + own], axis=2)
    found = time_courses.consistency(courses(values, level)).sel(layer=4)
    assert found["course"].values.tolist() == ["whole", "beyond_level"]
    whole, beyond = found["p"].values
    assert (whole[[0, 1, 4]] < 0.01).all() and whole[2] > 0.05 and whole[3] == 1
    assert beyond[0] < 0.01 and beyond[1] > 0.05 and beyond[2] > 0.05 and beyond[4] < 0.01
    by_hand = np.corrcoef(values[:, :, 0])[np.triu_indices(n, 1)].mean()
    assert found["r"].values[0, 0] == pytest.approx(by_hand)
    slopes = np.array([np.polynomial.Polynomial.fit(a, b, 1)(a) for a, b in zip(level, values[:, :, 4])])
    left = np.corrcoef(values[:, :, 4] - slopes)[np.triu_indices(n, 1)].mean()
    assert found["r"].values[1, 4] == pytest.approx(left)


def test_consistency_p_is_exact_over_sign_flips():
    """With eight speakers p is the share of all sign patterns with as great a correlation between speakers."""
    values = np.random.default_rng(2).standard_normal((8, 6, 3)) + 0.4 * np.sin(np.arange(6))[:, None]
    found = time_courses.consistency(courses(values, np.random.default_rng(3).standard_normal((8, 6))))
    for neuron in range(3):
        r = np.corrcoef(values[:, :, neuron])
        every = [np.outer(s, s)[np.triu_indices(8, 1)] @ r[np.triu_indices(8, 1)] for s in product((1, -1), repeat=8)]
        assert found["p"].values[0, 0, neuron] == pytest.approx(np.mean(np.array(every) >= every[0] - 1e-9))


@pytest.mark.parametrize("n", [8, 16])
def test_consistency_holds_level_for_random_walks(n):
    """Random walks have p < 0.05 in 3 to 6.5 % of neurons; a null of shifted courses would have it too often."""
    rng = np.random.default_rng(4)
    walks = rng.standard_normal((n, 10, 2000)).cumsum(axis=1)
    p = time_courses.consistency(courses(walks, rng.standard_normal((n, 10)).cumsum(axis=1)), draws=999)["p"].values
    assert (0.03 < (p < 0.05).mean(axis=(1, 2))).all() and ((p < 0.05).mean(axis=(1, 2)) < 0.065).all()


def test_consistency_separates_words_from_position():
    """Between statements a course of the words is no more alike than the words; one of position is significant."""
    rng = np.random.default_rng(6)
    words, place, n = rng.standard_normal((2, 10)), rng.standard_normal(10), 10
    statement = np.tile([1, 2], n)
    noise = 0.3 * rng.standard_normal((2, 2 * n, 10))
    values = np.stack([words[statement - 1] + noise[0], place + noise[1]], axis=2)
    data = courses(values, rng.standard_normal((2 * n, 10)), statement)
    data = data.assign_coords(speaker=("clip", np.repeat([f"s{i:02d}" for i in range(n)], 2).astype(object)))
    found = time_courses.consistency(data).sel(layer=4)
    assert found["course"].values.tolist() == ["whole", "beyond_level", "other_words"]
    of_words, of_place = found["r"].sel(course="other_words").values
    expected = np.corrcoef(words)[0, 1]
    assert abs(of_words - 0.8 * expected) < 0.25 and of_place > 0.5
    assert (found["p"].sel(course="beyond_level") < 0.01).all() and found["p"].sel(course="other_words")[1] < 0.01
    # A speaker with one statement only, and clips of no known statement, leave it standing.
    some = data.isel(clip=slice(1, None))
    some["statement"] = "clip", np.where(np.arange(2 * n - 1) == 5, None, statement[1:].astype(object))
    again = time_courses.consistency(some).sel(layer=4, course="other_words")
    assert np.allclose(again["r"], [of_words, of_place], atol=0.15)


def test_consistency_subtracts_shuffled_speech():
    """A course that shuffled speech has too is not significant; one beyond that is."""
    rng = np.random.default_rng(5)
    own, edges, n = rng.standard_normal(10), 5 * np.linspace(1, -1, 10) ** 4, 9
    values = np.stack([edges + own, edges + 0 * own], axis=1) + 0.3 * rng.standard_normal((n, 10, 2))
    data = courses(values, rng.standard_normal((n, 10)))
    data["shuffled"] = data["shuffled"] + xr.DataArray(edges, dims="position")
    p = time_courses.consistency(data).sel(layer=4, course="whole")["p"]
    assert p[0] < 0.01 and p[1] > 0.05


def test_pieces_fade_at_joints_only():
    """Pieces of 80 ms fade over 5 ms at every joint, and the waveform is unchanged elsewhere."""
    x = np.ones(8000)
    before, *pieces, after = time_courses._pieces(x, 1000, 7400, 16000)
    assert [len(before), len(after), *map(len, pieces)] == [1000, 600, *[1280] * 5]  # five pieces of 80 ms
    ramp = np.sin(np.pi / 2 * (np.arange(80) + 0.5) / 80) ** 2  # 5 ms
    for piece in pieces:
        assert np.allclose(piece[:80], ramp) and np.allclose(piece[-80:], ramp[::-1]) and (piece[80:-80] == 1).all()
    assert np.allclose(before[-80:], ramp[::-1]) and np.allclose(after[:80], ramp)
    assert (before[:-80] == 1).all() and (after[80:] == 1).all()
    assert (np.concatenate(time_courses._pieces(x, 400, 320, 16000)) == 1).all()  # nothing in between
    short = np.concatenate(time_courses._pieces(x.astype(np.float32), 400, 500, 16000))
    assert (
        short.shape == (8000,) and short.dtype == np.float32 and (short[:320] == 1).all() and (short[580:] == 1).all()
    )


def test_course_control_is_mean_of_shuffled_copies(tiny, clips):
    """The control is the mean over seeded copies with the pieces in random order, of activation and level."""
    model = tiny("base")
    found = time_courses.course(model, clips, bins=5, layers=[2], shuffles=3, seed=4).sel(clip=9, layer=2)
    x = audio.read(clips["path"][9])
    first, last = np.flatnonzero(audio.speech_mask(x))[[0, -1]]
    before, *pieces, after = time_courses._pieces(x, first * 320 + 400, last * 320, 16000)
    rng, each, levels = np.random.default_rng(targets.key(4, 9, "course")), [], []
    for _ in range(3):
        copy = np.concatenate([before, *(pieces[i] for i in rng.permutation(len(pieces))), after])
        with torch.no_grad(), hooks.capture(model, [2]) as seen:
            model.logits(model.tensor(copy))
        hidden = seen[model.check(2)][0, first : last + 1].cpu().numpy()
        rms = audio.features(torch.from_numpy(copy), names=("rms",))["rms"].numpy()[first : last + 1]
        each.append([part.mean(axis=0) for part in np.array_split(hidden, 5)])
        levels.append([20 * np.log10(np.maximum(part, 1e-4)).mean() for part in np.array_split(rms, 5)])
    assert np.allclose(found["shuffled"], np.mean(each, axis=0), atol=1e-5)
    assert np.allclose(found["shuffled_level"], np.mean(levels, axis=0), atol=1e-3)
    assert not np.allclose(found["shuffled"], each[0], atol=1e-3) and not np.allclose(levels[0], levels[1], atol=1e-3)


def test_course_shuffles_clips_independently(tiny, tmp_path):
    """Course and shuffled copies of a clip depend on the seed, not on which other clips are there."""
    model, said = tiny("base"), spoken(tmp_path, lambda samples: samples, speakers=3)
    whole = time_courses.course(model, said, layers=[2])
    for some in (said[::-1], said[4:5]):
        again = time_courses.course(model, some, layers=[2])
        for name in ("activation", "shuffled", "level", "shuffled_level"):
            assert np.array_equal(again[name], whole[name].sel(clip=some.index))
    other = time_courses.course(model, said[4:5], layers=[2], seed=1)
    assert not np.allclose(other["shuffled"], whole["shuffled"].sel(clip=said.index[4:5]), atol=1e-3)


def test_consistency_ignores_joints_in_voiced_sound(tmp_path, device):
    """Tones of constant level and pitch have no significant course: pieces without a fade would click."""
    places = iter(range(16))

    def tone(samples):
        place, time = next(places), np.arange(len(samples)) / 16000
        phases = 2 * np.pi * np.random.default_rng(place).uniform(size=20)
        pitch = 101 + 11.7 * (place // 2) + 5.3 * (place % 2)
        wave = sum(np.cos(2 * np.pi * pitch * n * time + phases[n - 1]) / n for n in range(1, 21))
        return wave / wave.std()

    held = time_courses.consistency(time_courses.course(models.load("pocket", device=device), spoken(tmp_path, tone)))
    assert (held["q"] > 0.05).all() and (abs(held["r"].mean(["layer", "neuron"])) < 0.05).all()


def spoken(folder, shape, speakers=8):
    """Two clips by each speaker of noise, silent at both ends; `shape` makes of white noise what is said."""
    rows = []
    for speaker, take in product(range(speakers), range(2)):
        samples = np.random.default_rng([speaker, take]).standard_normal(16000 + 1600 * take)
        samples = 0.05 * (1 + 0.2 * speaker) * shape(samples)
        path = folder / f"{speaker}-{take}.wav"
        soundfile.write(path, np.pad(samples, 4000).astype(np.float32), 16000, subtype="FLOAT")
        rows.append({"path": str(path), "label": "sad", "speaker": f"s{speaker}", "statement": 1 + take})
    return pd.DataFrame(rows)


def test_consistency_subtracts_shuffled_level():
    """The level is corrected for that of shuffled speech before it is regressed out of the courses."""
    rng, n = np.random.default_rng(7), 9
    edges = 3 * np.linspace(1, -1, 10) ** 4 + rng.standard_normal((n, 10))  # of the level, in any order of the pieces
    level, own = rng.standard_normal((n, 10)) + np.sin(np.arange(10)), rng.standard_normal(10)
    values = np.stack([2 * level, 2 * level + own], axis=2) + 0.01 * rng.standard_normal((n, 10, 2))
    data = courses(values, level + edges)
    data["shuffled_level"] = data["shuffled_level"] + edges
    found = time_courses.consistency(data).sel(layer=4)
    assert (found["p"].sel(course="whole") < 0.01).all()
    assert found["p"].sel(course="beyond_level")[0] > 0.05 and found["p"].sel(course="beyond_level")[1] < 0.01
    left = [np.polynomial.Polynomial.fit(a, b, 1)(a) for a, b in zip(level, values[:, :, 1])]
    by_hand = np.corrcoef(values[:, :, 1] - left)[np.triu_indices(n, 1)].mean()
    assert found["r"].sel(course="beyond_level")[1] == pytest.approx(by_hand)


@pytest.mark.parametrize("frames", ["speech", "all"])
def test_consistency_ignores_onsets_and_edges(tiny, tmp_path, frames):
    """In steady noise a model's own onsets and edges are not significant courses; a change of sound is one."""
    model = tiny("base")
    if frames == "speech":
        still = spoken(tmp_path, lambda samples: samples)
        found = time_courses.course(model, still, frames=frames)
        raw = time_courses.consistency(found.assign(shuffled=0 * found["shuffled"], shuffled_level=0 * found["level"]))
        assert (raw["q"].sel(course="whole") < 0.05).mean() > 0.5
        held = time_courses.consistency(found)
        assert ((held["q"] < 0.05).mean(["layer", "neuron"]) <= 0.05).all()
    tone = 1.4 * np.sin(2 * np.pi * 440 * np.arange(20000) / 16000)  # as loud as the noise that goes before
    changing = spoken(tmp_path, lambda samples: np.where(np.arange(len(samples)) < 8000, samples, tone[: len(samples)]))
    held = time_courses.consistency(time_courses.course(model, changing, frames=frames))
    assert (held["q"].sel(course=["whole", "beyond_level"]) < 0.05).mean() > 0.3


def test_consistency_needs_eight_speakers():
    """Under eight speakers p is NaN; a single speaker, and unknown speakers, are refused."""
    values = np.random.default_rng(0).standard_normal((7, 5, 2))
    found = time_courses.consistency(courses(values, values[:, :, 0]))
    assert np.isnan(found["p"]).all() and np.isfinite(found["r"]).all()
    with pytest.raises(ValueError, match="two or more"):
        time_courses.consistency(courses(values[:1], values[:1, :, 0]))
    with pytest.raises(ValueError, match="speaker"):
        time_courses.consistency(courses(values, values[:, :, 0]).drop_vars("speaker"))
