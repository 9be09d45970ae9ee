"""Sections: seeds and orders, clips that are drawn, who speaks, statistics, and what is measured of sound."""

import numpy as np
import pandas as pd
import xarray as xr

from xai_lib import audio, corpora, statistics, targets
from xai_lib.activations import random_neurons
from xai_lib.audio import reading
from xai_lib.corpora import emotion_profiles, filenames, fingerprints, identity, phonemes, sampling
from xai_lib.models import sites, windows
from xai_lib.pruning import neuron_selection
from xai_lib.workbook import inputs as sides

from . import inputs


def seeds():
    """Texts that seed, the keys and first numbers they give, and orders by position and text."""
    texts = {name: text for name, text in vars(targets).items() if name.startswith("SEED_")}
    rows = [
        (text, seed, index, *targets.key(seed, index, text))
        for text in texts.values()
        for seed in (0, 5)
        for index in (0, 713)
    ]
    keys = pd.DataFrame(rows, columns=["text", "seed", "index", "first", "second"])
    first = [np.random.default_rng(targets.key(0, 7, text)).random(3) for text in texts.values()]
    units = [(part, layer, layer) for part in ("ffn_out", "attention", "hidden_state") for layer in range(12, 0, -1)]
    modules = {sites.Site(f"layers.{place}", "module"): [0, 1, 2] for place in (3, 0)}

    class Sizes:
        """Stands for a model, of which only widths are asked."""

        @staticmethod
        def n_neurons(site):
            return 40

    return {
        "keys": keys,
        "first_numbers": inputs.by_name(dict(zip(texts.values(), first)), ("number",)),
        "order_of_sites": inputs.neurons(neuron_selection.plan(units)),
        "sets_by_place": pd.concat([inputs.neurons(plan) for plan in neuron_selection.controls(modules, Sizes, 3)]),
        "substitutes": inputs.by_name(
            inputs.by_place(random_neurons.draw_substitutions(np.arange(60) % 3, 3, seed=[0, 4])), ("neuron",)
        ),
    }


def clips():
    """Draws, balanced draws, splits and folds of the sample."""
    corpus, some = inputs.corpus(), sampling.balanced(inputs.side("train"), 24, seed=1)
    undivided = pd.concat([some, sampling.balanced(inputs.side("test"), 24, seed=1)]).drop(columns="split")
    return {
        "train": inputs.train(),
        "test": inputs.test().drop(columns=["path", "corpus"]),
        "drawn_by_value": list(corpora.draw(corpus, 5, seed=3, label="sad", sex="female").index),
        "balanced": list(corpora.balanced(corpus, 40, seed=2).index),
        "balanced_without_speakers": list(corpora.balanced(corpus.drop(columns="speaker"), 20, seed=2).index),
        "split": sides.split(undivided, inputs.pocket())["split"],
        "split_by_seed": corpora.split(corpus, seed=0)["split"].groupby(corpus["speaker"]).first(),
        "split_by_another_seed": corpora.split(corpus, test=0.4, seed=1)["split"].groupby(corpus["speaker"]).first(),
        "folds": corpora.folds(corpus, 5, seed=0).groupby(corpus["speaker"]).first(),
        "folds_by_another_seed": corpora.folds(inputs.train().drop(columns="sex"), 2, seed=4),
        "drawn_for_a_notebook": list(sides.subsample(corpus, 30, 0).index),
        "usable": list(sides.usable(inputs.train(), inputs.pocket(), {}).index),
        "describe_test_speakers": sides.describe_test_speakers(inputs.pocket(), inputs.test()),
        "summary": corpora.summary(corpus).reset_index(),
        "from_a_waveform": corpora.as_clips(np.ones(500, np.float32), 16000).drop(columns="audio", errors="ignore"),
        "phonemes": phonemes.timed(inputs.few()),
    }


def who():
    """Names of speakers and files, who was heard before, fingerprints of sounds."""
    spoken = ["Anna", " anna ", "01", 1.0, None, "RAVDESS-07", "actor 3"]
    files = ["03-01-05-01-02-01-12.wav", "1001_DFA_ANG_XX.wav", "OAF_back_angry.wav", "DC_a01.wav", "holiday.wav"]
    some = inputs.few().assign(
        path=[f"03-01-05-01-02-01-{actor}.wav" for actor in (12, 13)], speaker=["ravdess-12", "x"]
    )
    bits = fingerprints.of_files(inputs.test()["path"].iloc[:4])
    return {
        "compared": [str(identity.comparable_name(name)) for name in spoken],
        "unified": identity.unify_spelling(spoken),
        "of_files": [str(identity.of_file(file)) for file in files],
        "training_status": identity.training_status(some, ["ravdess-12", "ravdess-14"]),
        "parsed": [str(filenames.parse("ravdess", file)) for file in files[:1]],
        "ordered": filenames.ordered(["sad", "zeal", "neutral", "calm", "angry"]),
        "fingerprints": bits,
        "bits_apart": fingerprints.distances(bits, bits),
        "hashes": [reading.content_hash(path) for path in inputs.test()["path"].iloc[:3]],
    }


def tests():
    """Every interval, test and deal of `statistics`, on numbers that are made."""
    rng = np.random.default_rng(0)
    some, many = rng.standard_normal((9, 6)) + 0.4, rng.standard_normal((18, 6)) + 0.2
    some[0, 0] = np.nan
    other, quantities = rng.standard_normal((10, 6)), rng.standard_normal((10, 6, 4)) + 0.3
    selected, drawn = quantities.mean(axis=0).argmax(axis=1), rng.standard_normal((6, 40))
    groups = np.split(np.arange(24), [4, 10, 14, 18])
    clips = xr.DataArray(other, {"speaker": ("clip", list("aabbccddee"))}, ("clip", "entry"))
    intervals = {
        "interval": statistics.interval(some),
        "welch": statistics.welch(some, other),
        "rank_test": statistics.rank_test(some[1], drawn),
        "rank_test_of_dependent_draws": statistics.rank_test(some[1], drawn, draws=10),
        "rank_band": statistics.rank_band(drawn),
    }
    p = {
        "sign_flip_test": statistics.sign_flip_test(some),
        "sign_flip_test_by_draws": statistics.sign_flip_test(many, permutations=199, seed=3),
        "t_test": statistics.t_test(some),
        "t_test_above": statistics.t_test_above(some),
        "selection_test": statistics.selection_test(quantities, selected, draws=100, seed=2),
        "selection_test_of_all_signs": statistics.selection_test(quantities, selected, draws=2000),
        "prediction_sd": statistics.prediction_sd(drawn.T),
        "prediction_test": statistics.prediction_test(some[1], drawn.T),
        "permutation_p": statistics.permutation_p(some[1], [drawn.T[:25], drawn.T[25:]]),
        "fdr": statistics.fdr(statistics.t_test(many)),
        "cohens_d": statistics.cohens_d(some),
        "cohens_d_of_groups": statistics.cohens_d(some, other),
        "auroc": statistics.auroc(other, many),
        "eta_squared": statistics.eta_squared(many, np.repeat(["a", "b", "c"], 6)),
    }
    return {
        **{name: inputs.by_name(inputs.by_place(values), ("entry",)) for name, values in intervals.items()},
        "p": inputs.by_name(p, ("entry",)),
        "repeated_measures_test": statistics.repeated_measures_test(quantities),
        "restricted_permutations": list(statistics.restricted_permutations(groups, 4, 7)),
        "deals_of_wholes": list(statistics.restricted_permutations(groups, 4, [7, 1], whole_speakers=True)),
        "unit": statistics.standardize(other),
        "uar": statistics.uar(list("aabbb"), list("ababb")),
        "by_speaker": statistics.by_speaker(clips),
        "over_speakers": statistics.over_speakers(clips),
    }


def sound():
    """Features, speech, pitch, six numbers of a voice and how they differ, what is said of long recordings."""
    rate, index = 16000, inputs.test().index[0]
    waveform = reading.read(inputs.test().loc[index, "path"], rate)
    measured, test = inputs.measured(), inputs.test()
    some = measured.loc[test.index, list(emotion_profiles.FACTORS)]
    cells = emotion_profiles.cells(some, test)
    features = {name: values.numpy() for name, values in audio.features(waveform, rate).items()}
    return {
        "features": inputs.by_name(features, ("frame",)),
        "speech": audio.speech_mask(waveform, rate),
        "frames": emotion_profiles.frames(waveform, rate),
        "features_table": measured,
        "centred": emotion_profiles.centred(some, test),
        "eta_squared": emotion_profiles.eta_squared(some, test, shuffles=inputs.DRAWS, seed=3),
        "cells": cells,
        "differences": emotion_profiles.differences(cells, base=cells["label"].values[0]),
        "predictions": inputs.pocket().predict(test),
        "over_time": windows.over_time(inputs.pocket(), inputs.few(), window=1.0, step=0.5),
    }
