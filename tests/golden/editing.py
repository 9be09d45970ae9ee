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
from .neuron_sets import by_prefix, joined, with_neurons

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
    names, selected = random_neurons.target_blind(activation_stats, 12), {4: np.array([0, 9, 143])}
    one = [selected, *random_neurons.random_sets(sizes, selected, 3, seed=6)]
    several = [group, *random_neurons.random_sets(sizes, group, 3, seed=6)]
    directions = random_neurons.direction_sets(144, selected, 2, seed=6)
    return {
        "rms": sizes,
        "size_classes": classes,
        "size_classes_of_five": random_neurons.size_classes(sizes.sel(layer=3).values, 5),
        "classes_of_several_layers": random_neurons.classes_of(sizes, [1, 2], 4),
        "substitutes": inputs.by_name(
            inputs.by_place(random_neurons.draw_substitutions(classes, 4, seed=8)), ("neuron",)
        ),
        "sets": inputs.listed([some[4] for some in one]),
        "sets_of_several_layers": inputs.listed([own for some in several for own in some.values()]),
        "directions": inputs.by_name(inputs.by_place([some[4] for some in directions]), ("neuron", "direction")),
        "distinct": [
            random_neurons.count_sets(classes, [0, 9, 143]),
            random_neurons.count_random_sets(sizes, selected),
        ],
        "overlap": [random_neurons.overlap([some[4] for some in one]), random_neurons.mean_overlap(several[1:4])],
        "size": [random_neurons.rms_of(sizes, some) for some in (*one, *directions)],
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
    clips = inputs.test().loc[some]
    stats = inputs.activation_stats()
    selection = ablation.select(inputs.scores(), 5, layers=[2, 5])
    found = ablation.sweep(
        inputs.pocket(),
        clips,
        selection,
        edit=ablation.Edit(
            edits.MODES[:-1], activation_stats=stats, donors=donors.random_donors(clips, inputs.side("test"), seed=1)
        ),
        controls=ablation.RandomControls(stats, n=2, modes=["flip", "noise"]),
        readouts=[ablation.Proxies(proxy), ablation.Decoders(decoder), ablation.SpeakerSimilarity(space)],
        **swept(),
    )
    patch = ablation.sweep(
        inputs.pocket(),
        clips,
        selection,
        edit=ablation.Edit(["patch"], donors=pairs()),
        controls=ablation.RandomControls(stats, n=2),
        **swept(),
    )
    recognized = by_prefix(effects.recognition(found.sel(neuron_set=found["kind"].isin(["selected", "random"]))))
    return {
        "sweep": by_prefix(found),
        "patch": by_prefix(patch),
        "fraction_recovered": with_neurons(
            by_prefix(effects.patching_effect(patch.sel(neuron_set=patch["kind"].isin(["selected", "random"])))), patch
        ),
        "recognition": recognized.drop_vars("random_recall"),
        "distance": effects.distance(ablation.selected_values(found["relative_change"]).to_dataset()),
    }


def sets():
    """Sweeps of several sets of neurons, sizes, directions, groups of layers, parts and frames."""
    model, few, scores, stats = inputs.pocket(), inputs.few(), inputs.scores(), inputs.activation_stats()
    one_clip = few.head(1)
    ends = {"top": scores, "bottom": scores.assign(absolute=-scores["absolute"])}
    target = {"top": inputs.EMOTION, "bottom": inputs.RIVAL}
    ks = [2, 7]
    doses = {}
    for name, of_end in ends.items():
        options = {**swept(), "target": target[name]}
        doses[name] = [
            ablation.sweep(
                model,
                one_clip,
                ablation.select(of_end, k, layers=[3]),
                edit=ablation.Edit(["flip", "zero"]),
                controls=ablation.RandomControls(stats, n=2, n_directions=2),
                **options,
            )
            for k in ks
        ]
    joint = ablation.sweep(
        model,
        one_clip,
        ablation.select(scores, 5).together({"early": [0, 1], "late": [5, 6]}),
        controls=ablation.RandomControls(
            activations.activation_stats(model, one_clip), n=3, n_directions=1, size_classes=2, target_blind_stats=stats
        ),
        **swept(),
    )
    frames = {}
    for name in ("speech", "max_frame", "peak_frames"):
        swept_frames = ablation.sweep(
            model,
            one_clip,
            ablation.select(scores, 5, layers=[4]),
            edit=ablation.Edit(frames=name, n_peaks=3, window=1),
            controls=None,
            **swept(),
        )
        frames[name] = by_prefix(swept_frames)["logits"]
    frames = xr.concat(frames.values(), "frames").assign_coords(frames=list(frames))
    inside = activations.activation_stats(model, one_clip, part="ffn_hidden")
    hidden = ablation.sweep(
        model,
        one_clip,
        ablation.Selection({3: [5, 500]}, "ffn_hidden"),
        edit=ablation.Edit(["mean", "noise"], activation_stats=inside),
        controls=ablation.RandomControls(inside, n=2),
        **swept(),
    )
    heads = ablation.Selection({2: model.head_neurons(1)}, "heads")
    heads = ablation.sweep(model, few, heads, edit=ablation.Edit(["zero"]), controls=None)
    return {
        "doses": joined(doses, ks),
        "joint": by_prefix(joint),
        "frames": frames,
        "feed_forward": by_prefix(hidden),
        "heads": by_prefix(heads),
    }


def effect():
    """What a sweep of eight speakers comes to: summary, contrast, verdict, mean over groups, report."""
    clips = inputs.test().drop_duplicates("speaker")
    options = {**swept(), "controls": ablation.RandomControls(inputs.activation_stats(), n=24)}
    selection = ablation.select(inputs.scores(), 5, layers=[5, 6])
    found = ablation.sweep(inputs.pocket(), clips, selection, **options)
    rival = ablation.sweep(inputs.pocket(), clips, ablation.Selection(RIVALS), **options)
    groups = {"some": [5, 6]}
    change, rival_change = found["target_change"], rival["target_change"]
    random = ablation.control_values(change.isel(clip=0), "random")
    return {
        "sweep": by_prefix(found.drop_vars([name for name in found if "label" in found[name].dims])),
        "summary": with_neurons(effects.effect_over_speakers(found), found),
        "summary_of_a_label": with_neurons(
            effects.effect_over_speakers(found, "log_odds").sel(label=[inputs.RIVAL]), found
        ),
        "summary_of_blind": with_neurons(effects.effect_over_speakers(found, against="target-blind"), found),
        "contrast": effects.contrast(ablation.selected_values(change), ablation.selected_values(rival_change)),
        "between_random_sets": statistics.between_random_sets(random.rename("random_target_change"), shared=0.1),
        "verdict": with_neurons(
            verdicts.verdict(found.sel(mode="flip", drop=True), {"rival": rival.sel(mode="flip", drop=True)}), found
        ),
        "averaged": with_neurons(effects.effect_over_speakers(effects.average_over_layers(found, groups)), found),
        "groups": inputs.listed(ablation.groups(inputs.pocket()).values()),
        "report": effects.report(found, inputs.scores()),
    }


def swept():
    """Options of all sweeps."""
    return {"target": inputs.EMOTION, "seed": 1, "batch": 64}


def pairs():
    """Two test clips of other speakers, and for each the same words said otherwise."""
    test = inputs.test()
    return donors.minimal_pairs(test[test["label"] == inputs.EMOTION], inputs.side("test"), inputs.RIVAL).head(2)


def invert():
    """Which input would give an edited output."""
    rng = np.random.default_rng(0)
    values, weight, bias = (torch.as_tensor(rng.standard_normal(shape)) for shape in ((4, 12), 12, 12))
    stats = inputs.activation_stats()
    upstream = inversion.upstream(
        inputs.pocket(),
        inputs.few().head(1),
        ablation.select(inputs.scores(), 3, layers=[2]),
        edit=ablation.Edit(("flip", "zero", "noise"), activation_stats=stats),
        controls=ablation.RandomControls(stats, n=1, target_blind=False),
        steps=15,
    )
    return {
        "upstream": by_prefix(upstream).drop_vars(["magnitude", "random_magnitude"]),
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
