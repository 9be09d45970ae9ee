"""Sections: edits and what they are compared with, donors, sweeps and what they come to, inversion, pruning."""

import warnings

import numpy as np
import pandas as pd
import torch
import xarray as xr

from xai_lib import ablation, activations, edits, pruning, statistics
from xai_lib.ablation import effects, inversion, verdicts
from xai_lib.activations import donors, random_neurons
from xai_lib.models import sites
from xai_lib.pruning import forgetting, neuron_selection

from . import inputs

RIVALS = {5: [5, 6, 7, 8, 9], 6: [0, 20, 40, 60, 80]}


def edit():
    """What each mode and each choice of frames does, and random directions."""
    rng = np.random.default_rng(0)
    hidden = torch.as_tensor(rng.standard_normal((2, 14, 9)), dtype=torch.float32)
    values = torch.as_tensor(rng.standard_normal((11, 9)), dtype=torch.float32)
    given = {"means": np.arange(9.0), "stds": np.arange(1.0, 10.0), "values": values}
    modes = {mode: edits.edit([1, 4, 7], mode, seed=3, **given) for mode in edits.MODES}
    speech = np.arange(14) % 3 > 0
    policies = {
        str(frames): edits.edit([0, 5], "flip", frames=frames, window=1, n_peaks=2, speech=speech)
        for frames in (*edits.FRAMES, [2, 9])
    }
    (basis,) = edits.directions(9, 2, 1, seed=4)
    functions = {
        **modes,
        **policies,
        "directions": edits.edit(basis, "flip"),
        "every": edits.edit("all", "mean", **given),
    }
    edited = {name: function(hidden).numpy() for name, function in functions.items()}
    sets = edits.directions(12, 3, 4, seed=[0, 5])
    return {
        "edited": inputs.by_name(edited, ("row", "frame", "neuron")),
        "directions": inputs.by_name(inputs.by_place(sets), ("neuron", "direction")),
    }


def null():
    """Classes of size, stand-ins, random sets, and the neurons that a blind choice names."""
    activation_stats, model = inputs.activation_stats(), inputs.pocket()
    sizes = random_neurons.rms(activation_stats)
    classes = random_neurons.size_classes(sizes.sel(layer=3).values)
    group = {1: np.array([3, 50, 99]), 2: np.array([3, 7])}
    one, several = (
        random_neurons.matched_sets(144, sizes, selected, n_random=3, directions=2, seed=6)
        for selected in ({4: np.array([0, 9, 143])}, group)
    )
    first, *drawn = [some for some in several if some[0].ndim == 1]
    names, selected = random_neurons.target_blind(activation_stats, 12), {4: np.array([0, 9, 143])}
    return {
        "rms": sizes,
        "size_classes": classes,
        "size_classes_of_five": random_neurons.size_classes(sizes.sel(layer=3).values, 5),
        "classes_of_several_layers": random_neurons.classes_of(sizes, [1, 2], 4),
        "substitutes": inputs.by_name(
            inputs.by_place(random_neurons.draw_substitutions(classes, 4, seed=8)), ("neuron",)
        ),
        "sets": inputs.listed([some[0] for some in one if some[0].ndim == 1]),
        "sets_of_several_layers": inputs.listed([own for some in (first, *drawn) for own in some]),
        "directions": inputs.by_name(inputs.by_place([some[0] for some in one[-2:]]), ("neuron", "direction")),
        "distinct": [
            random_neurons.count_sets(classes, [0, 9, 143]),
            random_neurons.count_random_sets(sizes, selected),
        ],
        "overlap": [random_neurons.overlap([some[0] for some in one[:4]]), random_neurons.mean_overlap(several[1:4])],
        "size": random_neurons.set_sizes(sizes, [4], one),
        "blind": [name for name in names],
        "blind_neurons": inputs.listed([own for rows in names.values() for own in rows.values()]),
        "outgoing": random_neurons.outgoing(model, "ffn_hidden", [2]),
        "outgoing_of_heads": random_neurons.outgoing(model, "heads", [2]),
    }


def donor():
    """Clips that stand in for others."""
    test, pool = inputs.test(), inputs.side("test")
    pairs = donors.minimal_pairs(test[test["label"] == inputs.EMOTION], pool, inputs.RIVAL)
    said = {"speaker": "a", "statement": 1}
    clip = pd.DataFrame([{**said, "label": "calm", "intensity": "strong", "repetition": 2}])
    others = [("normal", 1), ("normal", 2), ("strong", 1)]
    others = [{**said, "label": "sad", "intensity": loud, "repetition": again} for loud, again in others]
    values, logits = donors.read(inputs.pocket(), pairs["path"].iloc[0], [sites.Site(2)])
    return {
        "drawn": donors.random_donors(test, pool, seed=3)[["path", "label", "speaker"]],
        "minimal_pairs": pairs[["path", "label", "speaker", "statement", "intensity", "repetition"]],
        "pair_that_differs": donors.minimal_pairs(clip, pd.DataFrame(others), "sad"),
        "read": values[sites.Site(2)][:10, :40].numpy(),
        "logits": logits.numpy(),
    }


def sweep():
    """Every mode of a sweep with every read-out, beside random sets and blind choices; and what it comes to."""
    decoder, proxy, space = inputs.fitted()
    some = pairs().index
    clips, options = inputs.test().loc[some], swept()
    found = ablation.sweep(
        inputs.pocket(), clips, neurons=inputs.scores(), layers=[2, 5], modes=edits.MODES[:-1], n_random=2,
        donors=donors.random_donors(clips, inputs.side("test"), seed=1), random_modes=["flip", "noise"], decoders=decoder,
        proxies=proxy, speakers=space, **options,
    )  # fmt: skip
    patch = ablation.sweep(
        inputs.pocket(),
        clips,
        neurons=inputs.scores(),
        layers=[2, 5],
        modes=["patch"],
        n_random=2,
        donors=pairs(),
        **options,
    )
    return {
        "sweep": found,
        "patch": patch,
        "fraction_recovered": effects.patching_effect(patch),
        "recognition": effects.recognition(found),
        "distance": effects.distance(found),
    }


def sets():
    """Sweeps of several sets of neurons, sizes, directions, groups of layers, parts and frames."""
    model, few, scores = inputs.pocket(), inputs.few(), inputs.scores()
    options = swept()
    ends = {"top": scores, "bottom": scores.assign(absolute=-scores["absolute"])}
    target = {"top": inputs.EMOTION, "bottom": inputs.RIVAL}
    doses = ablation.sweep(
        model, few.head(1), neurons=ends, layers=[3], n_random=2, directions=2, modes=["flip", "zero"],
        **{**options, "k": [2, 7], "target": target},
    )  # fmt: skip
    joint = ablation.sweep(
        model, few.head(1), neurons=scores, layers={"early": [0, 1], "late": [5, 6]}, n_random=3, directions=1, size_classes=2,
        match=activations.activation_stats(model, few.head(1)), **options,
    )  # fmt: skip
    frames = {
        name: ablation.sweep(
            model, few.head(1), neurons=scores, layers=[4], n_random=0, frames=name, n_peaks=3, window=1, **options
        )
        for name in ("speech", "max_frame", "peak_frames")
    }
    frames = xr.concat([one["logits"] for one in frames.values()], "frames").assign_coords(frames=list(frames))
    inside = activations.activation_stats(model, few.head(1), part="ffn_hidden")
    hidden = ablation.sweep(
        model, few.head(1), neurons={3: [5, 500]}, part="ffn_hidden", modes=["mean", "noise"], n_random=2,
        **{**options, "activation_stats": inside},
    )  # fmt: skip
    heads = ablation.sweep(model, few, neurons={2: model.head_neurons(1)}, part="heads", modes=["zero"], n_random=0)
    return {"doses": doses, "joint": joint, "frames": frames, "feed_forward": hidden, "heads": heads}


def effect():
    """What a sweep of eight speakers comes to: summary, contrast, verdict, mean over groups, report."""
    clips = inputs.test().drop_duplicates("speaker")
    options = {**swept(), "n_random": 24, "layers": [5, 6], "modes": ["flip"]}
    found = ablation.sweep(inputs.pocket(), clips, neurons=inputs.scores(), **options)
    rival = ablation.sweep(inputs.pocket(), clips, neurons=RIVALS, **options)
    groups = {"some": [5, 6]}
    return {
        "sweep": found.drop_vars([name for name in found if "label" in found[name].dims]),
        "summary": effects.summary(found),
        "summary_of_a_label": effects.summary(found, "log_odds").sel(label=[inputs.RIVAL]),
        "summary_of_blind": effects.summary(found, against="blind"),
        "contrast": effects.contrast(found["target_change"], rival["target_change"]),
        "between_random_sets": statistics.between_random_sets(found["random_target_change"].isel(clip=0), shared=0.1),
        "verdict": verdicts.verdict(found.sel(mode="flip", drop=True), {"rival": rival.sel(mode="flip", drop=True)}),
        "averaged": effects.summary(effects.average_over_layers(found, groups)),
        "groups": inputs.listed(ablation.groups(inputs.pocket()).values()),
        "report": effects.report(found, inputs.scores()),
    }


def swept():
    """Options of all sweeps."""
    return {"k": 5, "target": inputs.EMOTION, "activation_stats": inputs.activation_stats(), "seed": 1, "batch": 64}


def pairs():
    """Two test clips of other speakers, and for each the same words said otherwise."""
    test = inputs.test()
    return donors.minimal_pairs(test[test["label"] == inputs.EMOTION], inputs.side("test"), inputs.RIVAL).head(2)


def invert():
    """Which input would give an edited output."""
    rng = np.random.default_rng(0)
    values, weight, bias = (torch.as_tensor(rng.standard_normal(shape)) for shape in ((4, 12), 12, 12))
    return {
        "upstream": inversion.upstream(
            inputs.pocket(), inputs.few().head(1), neurons=inputs.scores(), k=3, layers=[2], modes=("flip", "zero", "noise"),
            n_random=1, activation_stats=inputs.activation_stats(), steps=15,
        ),
        "nearest_normed": inversion.nearest_normed(values, weight, bias).numpy(),
    }  # fmt: skip


def chosen():
    """Which neurons to take out: scores, choices, controls."""
    model, train = inputs.pocket(), inputs.train()
    places = [site for part in ("attention", "ffn_hidden", "ffn_out") for site in model.sites(part, [2, 5])]
    support = neuron_selection.support(model, train, places)
    magnitude = activations.activations(model, train, places)["magnitude"]
    score = neuron_selection.contrast(support, inputs.EMOTION, weight=4)
    reach = neuron_selection.output_norm(model, magnitude)
    plan, tied = (
        neuron_selection.neurons_of(score, 30),
        neuron_selection.neurons_of((score > 0).astype(float), 12, seed=2),
    )
    texts = xr.DataArray(
        [["a wave", "rain, raining", None], ["waves and rain", "trains", ""]], dims=("layer", "neuron")
    )
    texts = texts.assign_coords(layer=[1, 2], neuron=[0, 1, 2])
    fits = xr.DataArray(np.random.default_rng(0).standard_normal((2, 6, 5)), dims=("layer", "neuron", "concept"))
    fits = fits.assign_coords(layer=[1, 2], neuron=range(6), concept=list("abcde"))
    look = train.head(8)
    steps = pruning.greedy(model, look, look["label"].iloc[0], 20, model.sites("ffn_hidden", [2, 5]), step=8)
    return {
        "support": support.isel(clip=slice(0, 4)),
        "contrast": score,
        "reach": reach,
        "reach_of_a_part": neuron_selection.output_norm(model, inputs.deep("train")["magnitude"]),
        "neurons_of": inputs.neurons(plan),
        "neurons_of_ties": inputs.neurons(tied),
        "neurons_of_a_part": inputs.neurons(
            neuron_selection.neurons_of(fits.sel(concept="b", drop=True), 5, part="ffn_out")
        ),
        "top": neuron_selection.top(fits, "b"),
        "mentions": neuron_selection.count_mentions(texts, "rain wave"),
        "controls": inputs.listed(
            [own for one in neuron_selection.controls(plan, reach, 3, seed=4) for own in one.values()]
        ),
        "controls_in_two_classes": inputs.listed(
            [own for one in neuron_selection.controls(plan, reach, 2, classes=2) for own in one.values()]
        ),
        "controls_of_any_size": inputs.listed(
            [own for one in neuron_selection.controls(plan, model, 3, seed=4) for own in one.values()]
        ),
        "blind": inputs.listed(
            [own for one in neuron_selection.target_blind(plan, magnitude, reach).values() for own in one.values()]
        ),
        "greedy": steps,
    }


def prune():
    """What is forgotten and kept without neurons."""
    model, test = inputs.pocket(), inputs.test()
    train = inputs.deep("train")
    scores = {
        "lift": neuron_selection.contrast(train["activation"], inputs.EMOTION),
        "rival": neuron_selection.contrast(train["activation"], inputs.RIVAL),
    }
    options = {"selection_clips": inputs.train(), "batch": 64, "seed": 2}
    compared = pruning.compare(
        model, test, scores, train["magnitude"], doses={"lift": [20, 80], "rival": [20]}, draws={"lift": 2, "rival": 0},
        **options,
    )  # fmt: skip
    lift = compared["lift"]
    plan = neuron_selection.neurons_of(scores["lift"], 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluated = pruning.evaluate(model, test.head(8), plan, inputs.EMOTION, draws=2, batch=64, seed=1)
    shares = pruning.importance(model, test.head(4), scores, shares=(0, 0.02, 0.05), seeds=2, batch=64)
    before = pruning.fingerprint(model)
    with pruning.prune(model, plan):
        during = pruning.fingerprint(model)
    return {
        "compare": lift,
        "compare_rival": compared["rival"],
        "evaluate": evaluated,
        "importance": shares,
        "fingerprints": [before, during, pruning.fingerprint(model)],
        "outcomes": forgetting.outcomes(lift),
        "by_class": forgetting.by_class(lift),
        "recalls": forgetting.recalls(lift),
        "summary": forgetting.summary(lift, inputs.EMOTION),
        "frontier": forgetting.frontier({inputs.EMOTION: {"lift": lift}}),
        "table": forgetting.table({inputs.EMOTION: compared, inputs.RIVAL: compared}),
        "effects": forgetting.effects(lift, inputs.EMOTION),
        "random_sets": [str(name) for name in forgetting.random_sets(lift)["neuron_set"].values],
    }
