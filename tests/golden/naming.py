"""Sections: captions and words, descriptions of neurons, claims, names from a list, what has nothing in common."""

import numpy as np
import pandas as pd
import xarray as xr

from xai_lib import dissection
from xai_lib.dissection import concept_matching, description_tests, interpretability, open_concepts, similarity_measures
from xai_lib.dissection.descriptions import captioning, encoders, language_models, text_analysis, vocabulary

from . import inputs


def words():
    """Captions, encoders, summaries, and what texts say."""
    measured, captions, train = inputs.measured(), inputs.captions(), inputs.train()
    reference, listed = measured.loc[train.index], vocabulary.concepts("emotions")
    counts = vocabulary.counts(captions)
    high, low = (counts.isel(clip=rows).sum("clip") for rows in (slice(0, 10), slice(10, None)))
    z = high.copy(data=vocabulary.terms(high, low, counts.sum("clip")))
    texts = "The voice is loud. It is not high-pitched.", "The voice is loud. It is slow."
    *left, removed = text_analysis.calibrate(*texts, encoder=encoders.tfidf(texts))
    space = encoders.AcousticSpace(reference)
    return {
        "captions": captions,
        "captions_by_class": captioning.Acoustics(reference)(inputs.few()),
        "ranks": encoders.ranks(measured, reference),
        "ranks_within_speakers": encoders.ranks(reference, reference, speakers=train["speaker"]),
        "lexicon": vocabulary.lexicon().reset_index(),
        "concepts": listed,
        "match": encoders.match(captions, listed),
        "match_sound": encoders.match_sound(measured, listed, space),
        "counts": counts,
        "terms": z,
        "sentence": vocabulary.sentence(z),
        "contrastive": language_models.Contrastive(captions)(captions.iloc[:6], captions.iloc[20:]),
        "sentences": text_analysis.sentences("One. Two!\n- three\n4. four"),
        "calibrated": left,
        "removed": removed,
        "said": sorted(text_analysis.asserted_words(texts[0], ["high-pitched"])),
        "parts_of_speech": text_analysis.parts_of_speech(captions, kinds=["length"]),
    }


def describe():
    """Descriptions of neurons, whether they hold, what neurons tell apart, a neuron at zero, a card."""
    train, test = (some(inputs.deep(side)["activation"]) for side in ("train", "test"))
    captions = inputs.captions()
    described = dissection.describe(train, captions, draws=inputs.DRAWS, seed=1)
    held = dissection.predictivity(test, described, captions, draws=inputs.DRAWS, seed=2)
    selective = dissection.selectivity(test)
    zero_ablation = dissection.zero_ablation(inputs.pocket(), inputs.few(), 5, 40)
    card = dissection.card(
        5,
        40,
        described=described,
        predictivity=held,
        selectivity=selective,
        test=inputs.deep("test"),
        zero_ablation=zero_ablation,
    )
    return {
        "describe": described,
        "predictivity": held,
        "selectivity": selective,
        "selectivity_of_sex": dissection.selectivity(test, "sex"),
        "zero_ablation": zero_ablation,
        "card": pd.Series(
            {name: str(value) for name, value in vars(card).items() if isinstance(value, (str, int, float))}
        ),
    }


def claim():
    """Adjectives, how many there are in which layer, and whether they are true of other speakers."""
    train, test = (some(inputs.deep(side)["activation"]) for side in ("train", "test"))
    captions, speaker = inputs.captions(), pd.factorize(inputs.train()["speaker"])[0]
    described = dissection.describe(train, captions, draws=inputs.DRAWS, seed=1)
    said, chance = (open_concepts.adjectives(described[name], min_z=1.0) for name in ("z", "chance"))
    without = [train.isel(clip=np.flatnonzero(speaker != out)) for out in np.unique(speaker)]
    without = [
        open_concepts.adjectives(dissection.describe(some, captions, draws=1)["z"], min_z=1.0) for some in without
    ]
    options = {"draws": inputs.DRAWS, "seed": 3}
    texts = pd.Series({0: "a loud voice", 1: "not loud, but slow", 2: "high-pitched"})
    return {
        "adjectives": said,
        "adjectives_of_texts": open_concepts.adjectives(texts),
        "distribution": open_concepts.distribution(said, chance),
        "by_layer": open_concepts.by_layer(said, chance, left_out=xr.concat(without, "speaker")),
        "check": description_tests.check(test, said, inputs.measured(), chance=chance, **options),
        "predictivity_auroc": description_tests.predictivity_auroc(test, described, captions, min_z=1.0, **options),
    }


def identify():
    """Names of neurons and of outputs, by five similarities of captions and of sounds; how often they are right."""
    train, outputs = some(inputs.deep("train")["activation"]), inputs.deep("test")["logit"]
    measured, captions, found = inputs.measured(), inputs.captions(), {}
    listed = vocabulary.concepts("emotions")
    space = encoders.AcousticSpace(measured.loc[inputs.train().index])
    fits = {
        "DB": concept_matching.concept_fit(listed, captions=captions),
        "TAB": concept_matching.concept_fit(listed, clips=measured, encoder=space),
    }
    for method, fit in fits.items():
        found[f"fit_{method}"] = fit
        found[f"choose_{method}"] = concept_matching.choose(outputs, fit.sel(clip=outputs["clip"].values))
        for similarity in similarity_measures.FUNCTIONS:
            options = {"method": method, "similarity": similarity, "draws": inputs.DRAWS, "seed": 4}
            found[f"{method}_{similarity}"] = concept_matching.identify(
                train, fit.sel(clip=train["clip"].values), **options
            )
    named = concept_matching.identify(outputs, fits["DB"].sel(clip=outputs["clip"].values), draws=inputs.DRAWS, top=4)
    return {
        **found,
        "similarities": list(similarity_measures.FUNCTIONS),
        "outputs": named,
        "accuracy": concept_matching.accuracy(named, concepts=listed),
        "asked": asked(listed),
    }


def asked(listed):
    """Names that a made-up language model gives."""

    class Told:
        """Answers with the concepts in the order of the alphabet."""

        @staticmethod
        def ask(system, user):
            return "\n".join(sorted(listed.index)[:5])

    units = inputs.deep("train")["activation"].isel(layer=[0], neuron=slice(0, 3))
    summaries = ["loud", "", "slow"]
    return concept_matching.identify(units, method="ICL", summaries=summaries, concepts=listed, llm=Told())


def similarity():
    """Scores by each similarity function alone, on numbers that are made."""
    rng = np.random.default_rng(0)
    values, fits = rng.standard_normal((40, 9)).round(1), rng.standard_normal((40, 5))
    values[:30, 0] = 0
    functions = (
        similarity_measures.cosine,
        similarity_measures.cosine_cubed,
        similarity_measures.rank_reorder,
        similarity_measures.wpmi,
        similarity_measures.soft_wpmi,
    )
    found = {function.__name__: function(fits, values) for function in functions}
    return {"scores": inputs.by_name(found, ("unit", "concept"))}


def nothing():
    """Neurons whose exemplars have nothing in common."""
    train, captions = inputs.deep("train")["activation"], inputs.captions()
    options = {"tau": (2, 3), "k": (3, 4), "clusters": [3, 5], "draws": inputs.DRAWS, "seed": 2}
    return {
        "uninterpretable": interpretability.uninterpretable(
            captions.loc[inputs.train().index], some(train), encoder=encoders.tfidf(captions), **options
        )
    }


def some(data):
    """Sixty neurons of each layer, so that arrays stay small."""
    return data.isel(neuron=slice(0, 60))
