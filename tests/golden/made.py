"""Section: words, names, contrasts and probes on made-up clips of sixteen speakers, as many as tests over them need."""

import numpy as np
import pandas as pd
import xarray as xr

from xai_lib import dissection
from xai_lib.attribution import class_contrast
from xai_lib.corpora import emotion_profiles
from xai_lib.dissection import concept_matching, description_tests, interpretability, open_concepts, similarity_measures
from xai_lib.dissection.descriptions import encoders, vocabulary
from xai_lib.probing import linear_probes, variance_explained

from . import inputs

LABELS = ("angry", "happy", "sad")
LAYERS, NEURONS = 4, 10


def speakers():
    """What is said, claimed and told where speakers are many."""
    activity = activations()["activation"]
    first, rest = (activity.isel(clip=activity["first"].values == side) for side in (True, False))
    measured = features()
    captions = pd.Series([caption(row) for _, row in measured.iterrows()], measured.index)
    options = {"draws": inputs.DRAWS, "seed": 3}
    described = dissection.describe(first, captions, **options)
    said, chance = (open_concepts.adjectives(described[name], min_z=1.0) for name in ("z", "chance"))
    without = [first.isel(clip=first["speaker"].values != out) for out in np.unique(first["speaker"])]
    without = [open_concepts.adjectives(dissection.describe(one, captions, draws=1)["z"], min_z=1.0) for one in without]
    listed = pd.Series({"angry": "a loud, fast voice", "sad": "a quiet, slow voice", "happy": "a high-pitched voice"})
    fit = encoders.match(captions, listed).sel(clip=first["clip"].values)
    named = {
        name: concept_matching.identify(first, fit, similarity=name, **options)
        for name in similarity_measures.FUNCTIONS
    }
    return {
        "describe": described,
        "predictivity": dissection.predictivity(rest, described, captions, min_z=1.0, **options),
        "selectivity": dissection.selectivity(rest),
        "selectivity_of_sex": dissection.selectivity(activity, "sex"),
        "distribution": open_concepts.distribution(said, chance),
        "by_layer": open_concepts.by_layer(said, chance, left_out=xr.concat(without, "speaker")),
        "check": description_tests.check(rest, said, measured, chance=chance, **options),
        "predictivity_auroc": description_tests.predictivity_auroc(rest, described, captions, min_z=1.0, **options),
        **named,
        "uninterpretable": interpretability.uninterpretable(
            captions, activity, encoder=encoders.tfidf(captions), clusters=[3], k=4, tau=3, **options
        ),
        "counts": vocabulary.counts(captions).sum("clip"),
    }


def differing():
    """What differs between labels and sexes, and what layers tell of unseen speakers."""
    result, measured, table = activations(), features(), clips()
    read = result.rename(activation="clip_mean").assign_coords(intensity=("clip", ["normal"] * len(table)))
    first, rest = (read.isel(clip=read["first"].values == side) for side in (True, False))
    cells = emotion_profiles.cells(measured, table)
    return {
        "compare": class_contrast.compare(result, "label", "angry"),
        "compare_two": class_contrast.compare(result, "label", "angry", "sad"),
        "compare_sexes": class_contrast.compare(result, "sex", "female", "male"),
        "cells": cells,
        "differences": emotion_profiles.differences(cells, base="sad", seed=2),
        "eta_squared": emotion_profiles.eta_squared(measured, table, shuffles=inputs.DRAWS, seed=1),
        "selectivity": variance_explained.selectivity(read, draws=inputs.DRAWS, seed=2),
        "layer_probes": linear_probes.layer_probes(first, rest, components=4, controls=3, seed=5),
    }


def clips():
    """Six clips of each of sixteen speakers: three emotions in two sentences."""
    rows = [
        {"label": label, "speaker": f"s{speaker:02}", "sex": ("female", "male")[speaker % 2], "statement": statement}
        for speaker in range(16)
        for label in LABELS
        for statement in (1, 2)
    ]
    return pd.DataFrame(rows)


def activations():
    """Activations [clip, layer, neuron] that follow labels, sexes and speakers, with noise."""
    table, rng = clips(), np.random.default_rng(0)
    values = rng.standard_normal((len(table), LAYERS, NEURONS))
    for name in ("label", "sex", "speaker"):
        kinds, weights = pd.factorize(table[name])[0], rng.standard_normal((16, LAYERS, NEURONS))
        values += 0.7 * weights[kinds]
    coords = {name: ("clip", table[name].to_numpy(object)) for name in table}
    coords |= {"clip": table.index.to_numpy(), "layer": range(LAYERS), "neuron": range(NEURONS)}
    coords["first"] = "clip", (table["speaker"] < "s08").to_numpy()
    attributes = {"model": "made", "part": "hidden_state", "frames": "speech", "skipped": "{}"}
    return xr.Dataset({"activation": (("clip", "layer", "neuron"), values)}, coords, attributes)


def features():
    """What might have been measured of these clips: numbers that follow labels and sexes, with noise."""
    table, rng = clips(), np.random.default_rng(1)
    names = dict.fromkeys([*vocabulary.lexicon().index, *emotion_profiles.FACTORS])
    lively, high = table["label"].map({"angry": 1.0, "happy": 0.5, "sad": -1.0}), (table["sex"] == "female") * 1.0
    measured = {name: lively + high + rng.standard_normal(len(table)) for name in names}
    return pd.DataFrame(measured).assign(f0=lambda numbers: 150 * 2 ** (numbers["f0"] / 12))


def caption(row):
    """A caption of one row of `features`."""
    loud = "loud" if row["level_db"] > 0.5 else "quiet"
    fast = "fast" if row["rate"] > 0.5 else "slow"
    pitch = ", high-pitched" if row["f0"] > 160 else ""
    return f"a {loud}, {fast}{pitch} voice"
