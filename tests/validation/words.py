"""Do p values of descriptions hold their level? Data without an effect, in which clips are alike for other reasons.

Each test makes clips and captions, and gives p of some neurons: of a true null hypothesis, where `effect` is 0, or of neurons
that do follow the word. Beside the same captions, neurons are independent of each other, and count as a data set each.
`SCENARIOS` lists the tests with the kinds of data (`Clips`), numbers of speakers, and the effect at which power is given.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from xai_lib import dissection
from xai_lib.corpora.filenames import EMOTIONS
from xai_lib.dissection import descriptions, interpretability, open_concepts
from xai_lib.probing import variance_explained

from .framework import Scenario, each

PAIRS = {"level_db": ("quiet", "loud"), "f0": ("low-pitched", "high-pitched"), "tilt": ("dark", "bright")}
PAIRS |= {"rate": ("slow", "fast")}
LEXICON = pd.DataFrame(list(PAIRS.values()), index=pd.Index(list(PAIRS), name="feature"), columns=["low", "high"])
CONCEPTS = pd.Series({word: f"a {word} voice" for pair in PAIRS.values() for word in pair})
NEURONS = 5  # beside the same captions
WORDS_DIFFER_FROM = 0.43  # standard deviations from the mean: a third of clips has the low word, a third the high one


class Clips:
    """Speakers who each say every sentence in every emotion, some times; and what varies over their clips.

    `draw` gives columns [clip] of variance 1 that have nothing to do with each other. Of each, `share` is common to the
    clips that `kind` names, and the rest is the clip's own:

    independent clips     nothing is common
    speaker × emotion     a value for each speaker and emotion
    speaker × sentence    a value for each speaker and sentence
    sentence              a value for each sentence, the same in all speakers
    drift                 a trend over the order of recording, steeper or the reverse in other speakers
    shared drift          a trend over the order of recording, the same in all speakers
    """

    def __init__(self, rng, *, kind, speakers, emotions=8, sentences=2, repetitions=2, share=0.5):
        shape = speakers, emotions, sentences, repetitions
        self.speaker, self.emotion, self.sentence, _ = (x.ravel() for x in np.indices(shape))
        clips = emotions * sentences * repetitions
        order = rng.permuted(np.tile(np.arange(clips), (speakers, 1)), axis=1).ravel()
        self.time = np.sqrt(12) * ((order + 0.5) / clips - 0.5)  # of variance 1 in each speaker
        self.rng, self.kind, self.share = rng, kind, share

    def neurons(self, n, added=0):
        """Activations of `n` neurons, [clip, layer, neuron]: columns, to each of which is added the same [clip]."""
        return self.activations(np.stack([self.draw() + added for _ in range(n)], axis=1))

    def draw(self):
        """One column [clip]."""
        own = self.rng.standard_normal(len(self.speaker))
        if self.kind == "independent clips":
            return own
        return np.sqrt(self.share) * self._common() + np.sqrt(1 - self.share) * own

    def _common(self):
        """What clips have in common, [clip]."""
        speakers, emotions, sentences = (x.max() + 1 for x in (self.speaker, self.emotion, self.sentence))
        if self.kind == "speaker × emotion":
            return self.rng.standard_normal((speakers, emotions))[self.speaker, self.emotion]
        if self.kind == "speaker × sentence":
            return self.rng.standard_normal((speakers, sentences))[self.speaker, self.sentence]
        if self.kind == "sentence":
            return self.rng.standard_normal(sentences)[self.sentence]
        if self.kind == "drift":
            return self.rng.standard_normal(speakers)[self.speaker] * self.time
        if self.kind == "shared drift":
            return self.rng.standard_normal() * self.time
        raise ValueError(f"unknown kind of data {self.kind!r}")

    def activations(self, values):
        """Values [clip, neuron] as activations of a layer, [clip, layer, neuron]."""
        about = {
            "speaker": [f"s{number:02d}" for number in self.speaker],
            "label": [EMOTIONS[number] for number in self.emotion],
            "statement": self.sentence,
        }
        coords = {name: ("clip", np.array(column, object)) for name, column in about.items()}
        coords |= {"clip": np.arange(len(values)), "layer": [1], "neuron": np.arange(values.shape[1])}
        return xr.DataArray(values[:, None], coords, ("clip", "layer", "neuron"))


def measured(clips):
    """What was measured of each clip, a table [clip, quantity]."""
    return pd.DataFrame({name: clips.draw() for name in PAIRS})


def captions_of(features):
    """Captions: a word for each quantity that is far enough from its mean."""
    words = []
    for name, (low, high) in PAIRS.items():
        x = features[name].to_numpy()
        words.append(np.where(x > WORDS_DIFFER_FROM, high, np.where(x < -WORDS_DIFFER_FROM, low, "")))
    return pd.Series(["a voice " + " ".join(own) for own in zip(*words)], features.index)


def neurons_and_captions(rng, speakers, effect, design, neurons=NEURONS):
    """Activations of neurons that follow level as far as `effect` says, captions, and what was measured."""
    clips = Clips(rng, speakers=speakers, **design)
    features = measured(clips)
    return clips.neurons(neurons, effect * features["level_db"].to_numpy()), captions_of(features), features


def said_to_be_loud(activations):
    """A description that was written elsewhere: loud, and not quiet."""
    coords = {"layer": activations["layer"], "neuron": activations["neuron"], "word": ["loud", "quiet"]}
    z = xr.DataArray(np.tile([3.0, -3.0], (1, activations.sizes["neuron"], 1)), coords, ("layer", "neuron", "word"))
    return xr.Dataset({"z": z, "chance": z.expand_dims(draw=1)})


def describe(rng, *, speakers, effect=0.0, **design):
    """p of the word "loud" in the descriptions of neurons."""
    activations, captions, _ = neurons_and_captions(rng, speakers, effect, design)
    return dissection.describe(activations, captions, draws=1)["p"].sel(word="loud").values.ravel()


def z_of_words(rng, *, speakers, effect=0.0, **design):
    """p that z of the word "loud" would have if clips were independent, which `describe` does not say."""
    activations, captions, _ = neurons_and_captions(rng, speakers, effect, design)
    z = dissection.describe(activations, captions, draws=1)["z"].sel(word="loud").values.ravel()
    return 2 * stats.norm.sf(np.abs(z))


def identify(rng, *, speakers, effect=0.0, permutations=49, **design):
    """p of the best of eight concepts, of each neuron."""
    activations, captions, _ = neurons_and_captions(rng, speakers, effect, design)
    seed = int(rng.integers(2**31))
    named = dissection.identify(activations, concepts=CONCEPTS, captions=captions, draws=permutations, seed=seed)
    return named["p"].values.ravel()


def predictivity(rng, *, speakers, effect=0.0, permutations=49, **design):
    """p that a description predicts activations."""
    activations, captions, _ = neurons_and_captions(rng, speakers, effect, design)
    options = {"draws": permutations, "seed": int(rng.integers(2**31))}
    held = dissection.predictivity(activations, said_to_be_loud(activations), captions, **options)
    return held["p"].values.ravel()


def predictivity_auroc(rng, *, speakers, effect=0.0, permutations=49, **design):
    """p that a description predicts which clips drive neurons."""
    activations, captions, _ = neurons_and_captions(rng, speakers, effect, design)
    options = {"draws": permutations, "seed": int(rng.integers(2**31))}
    held = open_concepts.predictivity_auroc(activations, said_to_be_loud(activations), captions, **options)
    return held["p"].values.ravel()


def check(rng, *, speakers, effect=0.0, permutations=49, **design):
    """p that neurons said to be loud follow level."""
    activations, _, features = neurons_and_captions(rng, speakers, effect, design)
    coords = {"layer": activations["layer"], "neuron": activations["neuron"], "adjective": ["loud"]}
    said = xr.DataArray(np.ones((1, activations.sizes["neuron"], 1), bool), coords, ("layer", "neuron", "adjective"))
    seed = int(rng.integers(2**31))
    found = open_concepts.check(activations, said, features, LEXICON, draws=permutations, seed=seed)
    return found["p"].values.ravel()


def emotion_neurons(rng, speakers, effect, design):
    """Activations of neurons that are higher in angry clips as far as `effect` says."""
    clips = Clips(rng, speakers=speakers, **design)
    return clips.neurons(NEURONS, effect * (clips.emotion == EMOTIONS.index("angry")))


def selectivity_by_label(rng, *, speakers, effect=0.0, **design):
    """p that neurons tell angry clips from others (`dissection.selectivity`)."""
    found = dissection.selectivity(emotion_neurons(rng, speakers, effect, design))
    return found["p"].sel(concept="angry").values.ravel()


def selectivity_of_variance(rng, *, speakers, effect=0.0, permutations=49, **design):
    """p that neurons vary with emotion (`variance_explained.selectivity`)."""
    activations = emotion_neurons(rng, speakers, effect, design)
    read = activations.drop_vars("statement").to_dataset(name="clip_mean")
    found = variance_explained.selectivity(read, draws=permutations, seed=int(rng.integers(2**31)))
    return found["p"].sel(task="emotion").values.ravel()


def number_of_loud_neurons(rng, *, speakers, effect=0.0, permutations=20, **design):
    """p that more, or fewer, neurons are said to be loud than with shuffled captions (`open_concepts.distribution`)."""
    activations, captions, _ = neurons_and_captions(rng, speakers, effect, design, neurons=40)
    described = dissection.describe(activations, captions, draws=permutations, seed=int(rng.integers(2**31)))
    said, chance = (
        open_concepts.adjectives(described[name], LEXICON).sel(adjective=["loud"]) for name in ("z", "chance")
    )
    return open_concepts.distribution(said, chance)["q"].to_numpy()


def uninterpretable(rng, *, speakers, effect=0.0, permutations=20, **design):
    """p that the share of neurons whose strongest clips have nothing in common is that of random clips."""
    activations, captions, _ = neurons_and_captions(rng, speakers, effect, design, neurons=40)
    seed = int(rng.integers(2**31))
    options = {"encoder": descriptions.tfidf(captions), "tau": 3, "clusters": 8, "draws": permutations, "seed": seed}
    return interpretability.uninterpretable(captions, activations, **options)["p"].values.ravel()


TESTS = {  # each with the effect at which its power is given, in standard deviations of the clips
    "describe": (describe, 0.5),
    "identify": (identify, 0.5),
    "predictivity": (predictivity, 0.3),
    "predictivity_auroc": (predictivity_auroc, 0.3),
    "description_tests.check": (check, 0.3),
    "dissection.selectivity": (selectivity_by_label, 0.8),
    "variance_explained.selectivity": (selectivity_of_variance, 0.8),
}
OF_CLIPS = {"open_concepts.distribution": (number_of_loud_neurons, 0.3), "uninterpretable": (uninterpretable, 0.5)}
KINDS = ("speaker × emotion", "independent clips", "speaker × sentence", "drift")
FIXED = {  # what no test over speakers distinguishes from an association: it is the same in all of them
    "sentence": "sentences are treated as fixed: neuron and words that both follow a few sentences do go together in these",
    "shared drift": "a drift that all speakers share is treated as fixed: neuron and words that both drift go together",
}
BY_LABEL = ("dissection.selectivity", "variance_explained.selectivity")


def side_by_side(run):
    """What makes several data sets, of `run(rng, **design)`, which makes one of each of NEURONS neurons."""

    def several(generators, **design):
        of_neurons = [run(rng, **design) for rng in generators[::NEURONS]]
        return np.concatenate(of_neurons)[: len(generators), None]

    return several


def _scenario(test, kind, **more):
    run, effect = (TESTS | OF_CLIPS)[test]
    run = each(run) if test in OF_CLIPS else side_by_side(run)
    every = kind in ("speaker × emotion", "independent clips")
    options = {"speakers": (8, 16, 24) if every else (8,), **more}
    return Scenario(test, kind, run, design={"kind": kind}, effect=effect, **options)


SCENARIOS = [_scenario(test, kind) for test in TESTS for kind in KINDS]
# Labels are crossed with sentences and with the order of recording: there a test by label holds.
SCENARIOS += [_scenario(test, kind) for test in BY_LABEL for kind in FIXED]
# Not so a test of words: "limit" says why the level is not held, and is no failure.
SCENARIOS += [_scenario(test, kind, limit=why) for test in TESTS if test not in BY_LABEL for kind, why in FIXED.items()]
# What counts neurons of a layer beside captions shuffled clip by clip is about these clips, and says so.
SCENARIOS += [_scenario(test, "independent clips", speakers=(8,)) for test in OF_CLIPS]
SCENARIOS += [
    _scenario(test, "speaker × emotion", speakers=(8,), limit="clips are the units of this count") for test in OF_CLIPS
]
