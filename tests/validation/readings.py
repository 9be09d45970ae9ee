"""Tests of what is read from clips: frames silenced, patches, courses, acoustics, probes of layers.

What a speaker's clips have in common is that speaker's alone; all speakers share at most the course of the level.
"""

import numpy as np
import xarray as xr

from xai_lib import ablation, statistics
from xai_lib.corpora import emotion_profiles
from xai_lib.faithfulness import deletion_test
from xai_lib.probing import linear_probes, time_courses

from .framework import Scenario, each
from .sweeps import SETS, Network, neuron_sets

FRAMES, POSITIONS = 60, 10


def names(speakers, clips):
    """Names of speakers, [clip], of as many clips each."""
    return np.repeat([f"s{i:02d}" for i in range(speakers)], clips).astype(object)


def smooth(rng, *shape, over=5):
    """Noise whose neighbours along the last axis are alike."""
    noise = rng.standard_normal((*shape[:-1], shape[-1] + over - 1))
    return np.lib.stride_tricks.sliding_window_view(noise, over, axis=-1).mean(axis=-1) * np.sqrt(over)


def frames_silenced(rng, *, speakers, effect, clips=4):
    """q of three comparisons: the top frames of an attribution against the loudest, the shifted and random ones.

    What silencing a frame costs is partly a speaker's own, and so is what the attribution says of it. The attribution
    knows the cost as far as `effect` says; the level does not.
    """
    rows = []
    for _ in range(speakers):
        own_cost, own_attribution = smooth(rng, FRAMES), smooth(rng, FRAMES)
        for _ in range(clips):
            level, cost = smooth(rng, FRAMES), own_cost + smooth(rng, FRAMES)
            attribution = effect * cost + own_attribution + smooth(rng, FRAMES)
            masks = deletion_test.deletion_masks(attribution, level, np.arange(FRAMES), 0.2, 10, rng)
            drop = np.tanh(masks[1:] @ cost / FRAMES)
            rows.append([drop[0], drop[1], drop[2:12].mean(), drop[12:].mean()])
    coords = {"speaker": ("clip", names(speakers, clips)), "mode": ["top", "loudest", "shifted", "random"]}
    cost = statistics.by_speaker(xr.DataArray(rows, coords, ("clip", "mode")))
    more = [(cost.sel(mode="top") - cost.sel(mode=mode)).values for mode in ("loudest", "shifted", "random")]
    return statistics.fdr([statistics.sign_flip_test(values) for values in more])


def patched(rng, *, speakers, effect, k=20, clips=2):
    """p of the share of the way to the donor that patched neurons go (`ablation.patching_effect`), in one layer."""
    network = Network(rng, speakers=speakers, clips=clips, data="by speaker")
    selected = network.selected("any", rng, k)
    if effect:
        selected |= network.of_target(rng, k, effect)
    found, layer = network.swept(selected), 4
    moved = found["values"][layer][:, : 1 + SETS]  # of the label's logit; the donor's stays
    whole = 3 * np.abs(moved).mean() * (1 + 0.2 * rng.standard_normal((len(moved), 1)))

    def logits(values):
        return np.stack([values, np.zeros_like(values)], axis=-1)

    dims = ("clip", "layer", "mode", "neuron_set", "label")
    data = {
        "clean_logits": (("clip", "label"), logits(0 * whole[:, 0])),
        "donor_logits": (("clip", "label"), logits(-whole[:, 0])),
        "logits": (dims, logits(moved)[:, None, None]),
        "n_random_sets": ("layer", [found["n_random_sets"][layer]]),
    }
    alike = np.full(len(moved), "angry", object), np.full(len(moved), "sad", object)
    coords = {"layer": [layer], "mode": ["patch"], "label": ["angry", "sad"], "speaker": ("clip", network.speaker)}
    coords |= {name: ("clip", values) for name, values in zip(("emotion", "donor_label"), alike)}
    effect = ablation.patching_effect(xr.Dataset(data, coords | neuron_sets()))
    return ablation.effect_over_speakers(effect, "fraction_recovered")["p"].values.ravel()


def of_courses(rng, *, speakers, effect, clips=4, kind="beyond_level", curved=False):
    """p of one neuron's course (`time_courses.consistency`), each speaker with one.

    Beyond the level: all follow that of the level, too, in proportion, or exponentially (`curved`).
    """
    common, loud = smooth(rng, POSITIONS, over=3), smooth(rng, POSITIONS, over=3)
    bent = np.repeat(smooth(rng, speakers, POSITIONS, over=3), clips, axis=0)
    level = loud + 0.5 * smooth(rng, speakers * clips, POSITIONS, over=3)
    values = bent + effect * common + smooth(rng, speakers * clips, POSITIONS, over=3)
    if kind == "beyond_level":
        values = values + (np.exp(0.7 * level) if curved else level)
    dims, shape = ("clip", "position", "layer", "neuron"), values[:, :, None, None]
    data = {"activation": (dims, shape), "shuffled": (dims, 0 * shape)}
    data |= {"level": (dims[:2], level), "shuffled_level": (dims[:2], 0 * level)}
    coords = {"speaker": ("clip", names(speakers, clips)), "layer": [1], "neuron": [0]}
    found = time_courses.consistency(xr.Dataset(data, coords), draws=999, seed=int(rng.integers(2**31)))
    return found["p"].sel(course=kind).values.ravel()


def of_acoustics(rng, *, speakers, effect):
    """q of three labels against the base in two quantities (`emotion_profiles.differences`), speakers with a bent."""
    cells = rng.standard_t(4, (2, 4, speakers))
    cells[:, 1:] += effect
    coords = {"factor": ["level_db", "f0_range"], "label": ["neutral", "a", "b", "c"], "speaker": names(speakers, 1)}
    cells = xr.DataArray(cells, coords, ("factor", "label", "speaker"))
    return emotion_profiles.differences(cells, seed=int(rng.integers(2**31)))["q"].values.ravel()


def of_layers(rng, *, speakers, effect, neurons=6, sentences=3, emotions=6):
    """0 where the interval of a probe's selectivity leaves out 0, 1 elsewhere.

    The interval is that of `linear_probes.over_speakers_and_controls`. A type of clip (an emotion in a sentence) has
    activations of its own, so that probes of the sentence learn types by heart; with an effect, sentences have some
    too. Half of the speakers train.
    """
    everybody = 2 * speakers
    emotion, sentence, speaker = (x.ravel() for x in np.indices((emotions, sentences, everybody)))
    types, shared = rng.standard_normal((emotions, sentences, neurons)), rng.standard_normal((sentences, neurons))
    voices = rng.standard_normal((everybody, neurons))
    values = types[emotion, sentence] + effect * shared[sentence] + voices[speaker]
    values = values + rng.standard_normal((len(emotion), neurons))
    about = {"speaker": [f"s{x:02d}" for x in speaker], "label": [f"e{x}" for x in emotion], "statement": sentence}
    coords = {name: ("clip", np.array(column, object)) for name, column in about.items()}
    coords |= {"clip": np.arange(len(values)), "layer": [1], "neuron": np.arange(neurons)}
    read = xr.Dataset({"clip_mean": (("clip", "layer", "neuron"), values[:, None])}, coords)
    sides = read.isel(clip=speaker % 2 == 0), read.isel(clip=speaker % 2 == 1)
    found = linear_probes.layer_probes(*sides, components=None, controls=8, seed=int(rng.integers(2**31)))
    told = linear_probes.over_speakers_and_controls(found).sel(task="statement")
    return np.where((told["low"] > 0) | (told["high"] < 0), 0.0, 1.0)


SCENARIOS = [
    Scenario("frames silenced", "frames of a speaker alike", each(frames_silenced), effect=1.0,
             planted="as much cost as noise"),
    Scenario("patching, k = 20", "neurons of by speaker effects", each(patched), (8, 24), effect=0.9,
             planted="selected by 90 % target"),
    *(
        Scenario(f"courses, {kind.replace('_', ' ')}", "a course for each speaker", each(of_courses), (8, 16),
                 {"kind": kind}, 1.0, "half of a course in common")
        for kind in ("whole", "beyond_level")
    ),
    Scenario("courses, beyond level", "a course for each speaker, and the level's, curved", each(of_courses), (8,),
             {"curved": True}, limit="linearly beyond the level: what follows it in a curve does go beyond that"),
    Scenario("acoustics", "independent", each(of_acoustics), effect=1.5, planted="1.5 SD of speakers"),
    Scenario("probes of layers", "a value for each emotion and sentence", each(of_layers), (8,), effect=1.0,
             planted="sentences as far apart as their emotions", draws=800),
]  # fmt: skip
