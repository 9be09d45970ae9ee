"""Sweeps of ablation, verdicts, contrasts and pruning, on networks that are sums over neurons.

Flipping a set of neurons moves the target by a sum over its neurons, with far tails, and on average down, the more the
larger they are, as in real networks. Random sets, target-blind selections, ranks and verdicts are the library's own
code; not tried are the forwards of a sweep, which tests compare with hooks.
"""

from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from xai_lib import ablation, pruning
from xai_lib.activations import random_neurons
from xai_lib.attribution import class_contrast

from .framework import Scenario, each

LAYERS, WIDTH, SETS = 7, 144, 40
ACTIVE = 6  # `down` of networks in which the most active neurons do most


class Network:
    """Sizes and weights [layer, neuron], and what clips add of their own.

    The stream carries sizes and part of the weights from layer to layer. What a neuron does has far tails, grows with
    its size, and on average lowers the target, by `down` times the size, as flips of real networks do. The tails are
    Student's t of 2 degrees of freedom, made as a normal times a reach: how much a neuron does to any target, whichever
    way.
    """

    def __init__(self, rng, *, speakers, clips=2, data="independent", down=1):
        self.size = np.exp(0.6 * rng.standard_normal(WIDTH) + 0.2 * rng.standard_normal((LAYERS, WIDTH)))
        reach = np.sqrt(2 / rng.chisquare(2, (1 + LAYERS, WIDTH)))
        carried, *own = reach * rng.standard_normal(reach.shape)
        self.weight = self.size * (carried + np.stack(own) - down)
        self.written = self.size * np.hypot(reach[0], reach[1:])
        self.seeds = rng.integers(1e9, size=LAYERS)
        n, order = speakers * clips, np.arange(clips)
        units = {"independent": np.arange(n), "by speaker": np.repeat(np.arange(speakers), clips)}
        units |= {"by sentence": np.tile(order, speakers), "drift": np.zeros(n, int)}
        spread = np.abs(self.weight).mean(axis=1)[:, None, None]
        self.own = spread * rng.standard_t(4, (LAYERS, n, WIDTH))[:, units[data]]
        self.trend = 1 + 0.3 * np.tile(order - order.mean(), speakers)[:, None] * (data == "drift")
        self.noise = rng.standard_normal((LAYERS, n, 1))
        self.speaker = np.repeat([f"s{i}" for i in range(speakers)], clips).astype(object)

    def moved(self, at, members):
        """What each clip's target is moved by, [clip, set], for sets as rows of 0 and 1: a sum that saturates."""
        scale = 15 * np.sqrt(members[0].sum()) * np.abs(self.weight[at]).mean()
        values = scale * np.tanh((self.weight[at] + self.own[at]) @ members.T / scale) * self.trend
        return values + 0.1 * values.std() * self.noise[at]

    @cached_property
    def random(self) -> list:
        """Of each layer its size classes, [neuron], and what random sets put in place of each neuron, [set, neuron]."""
        classes = [random_neurons.size_classes(sizes) for sizes in self.size]
        # as `random_neurons.random_sets` has them
        seeds = [[int(seed), layer] for layer, seed in enumerate(self.seeds)]
        return [
            (own, np.stack(random_neurons.draw_substitutions(own, SETS, seed=seed)))
            for own, seed in zip(classes, seeds)
        ]

    def swept(self, selected) -> dict:
        """What a sweep of {layer: neurons} finds, as arrays by the names of `ablation.sweep`.

        The selected neurons come first, then the random sets, then the most active neurons and those that write most.
        """
        found = {"values": [], "rms": [], "n_random_sets": [], "random_overlap": []}
        for layer, (classes, stand_ins) in enumerate(self.random):
            neurons = selected[layer]
            k, random = len(neurons), stand_ins[:, neurons]
            blind = [np.argsort(-values[layer], kind="stable")[:k] for values in (self.size, self.written)]
            members = np.zeros((SETS + 3, WIDTH))
            np.put_along_axis(members, np.stack([neurons, *random, *blind]), 1, axis=1)
            found["values"].append(self.moved(layer, members))
            found["rms"].append(np.sqrt(members @ self.size[layer] ** 2 / k))
            found["n_random_sets"].append(random_neurons.count_sets(classes, neurons))
            found["random_overlap"].append(random_neurons.overlap(random))
        return found

    def selected(self, how, rng, k) -> dict:
        """{layer: neurons}: how a choice that knows nothing of the target names them."""
        every = range(LAYERS)
        if how == "any":
            return {at: np.sort(rng.choice(WIDTH, k, replace=False)) for at in every}
        if how == "the same in all layers":
            return dict.fromkeys(every, np.sort(rng.choice(WIDTH, k, replace=False)))
        if how == "of the strongest":  # for whatever target
            return {at: np.sort(rng.choice(np.argsort(self.weight[at])[: 2 * k], k, replace=False)) for at in every}
        seen = {
            "the most active": self.size,
            "the most active, nearly": self.size * np.exp(0.1 * rng.standard_normal(self.size.shape)),
            "those that write most, nearly": self.written * np.exp(0.1 * rng.standard_normal(self.size.shape)),
            "reach for their size, nearly": self.written
            / self.size
            * np.exp(0.1 * rng.standard_normal(self.size.shape)),
            "the greatest peaks": self.size * np.abs(rng.standard_normal((40, *self.size.shape))).max(axis=0),
        }
        return {at: np.sort(np.argsort(-seen[how][at])[:k]) for at in every}

    def of_target(self, rng, k, share) -> dict:
        """{layer: neurons} for layers 3 to 5: those that lower the target most for their size, as far as is seen."""
        known = self.weight / self.size
        seen = share * known + (1 - share) * np.abs(known).mean() * rng.standard_t(2, known.shape)
        return {at: np.sort(np.argsort(seen[at])[:k]) for at in (3, 4, 5)}


def result(found, speaker) -> xr.Dataset:
    """A result of `ablation.sweep`, in which several data sets stand side by side as modes, each tested by itself."""
    values = np.stack([np.stack(one["values"], axis=1) for one in found], axis=2)  # [clip, layer, data set, neuron set]
    by_layer = {name: np.array([one[name] for one in found]).swapaxes(0, 1) for name in found[0] if name != "values"}
    place = ("layer", "mode")
    data_vars = {
        "target_change": (("clip", *place, "neuron_set"), values),
        "rms": ((*place, "neuron_set"), by_layer["rms"]),
        "n_random_sets": (place, by_layer["n_random_sets"]),
        "random_overlap": (place, by_layer["random_overlap"]),
    }
    coords = {"layer": range(LAYERS), "mode": range(len(found)), "speaker": ("clip", speaker)}
    return xr.Dataset(data_vars, coords | neuron_sets(random_neurons.TARGET_BLIND))


def neuron_sets(target_blind=()) -> dict:
    """Coordinates of the neuron sets, as `ablation.sweep` has them: their names, and the kind of each."""
    random = [f"random {number}" for number in range(1, SETS + 1)]
    kinds = ["selected", *["random"] * SETS, *["target-blind"] * len(target_blind)]
    return {"neuron_set": ["selected", *random, *target_blind], "kind": ("neuron_set", kinds)}


def made(generators, *, speakers, k, how="any", data="independent", down=1, effect=0.0, rivals=True):
    """A sweep of neurons of each such network, and one of a rival that was selected in the same way, or None."""
    own, others = [], []
    for rng in generators:
        network = Network(rng, speakers=speakers, data=data, down=down)
        selected = network.selected(how, rng, k)
        if effect:
            selected |= network.of_target(rng, k, effect)
        own.append(network.swept(selected))
        if rivals:
            others.append(network.swept(network.selected(how if how == "of the strongest" else "any", rng, k)))
    return result(own, network.speaker), result(others, network.speaker) if rivals else None


def swept(generators, **design):
    """A result of `ablation.sweep` of such networks."""
    own, _ = made(generators, rivals=False, **design)
    return own


def of_layers(values, effect):
    """Values [mode, layer]; with an effect, of the layers that have it."""
    return values.sel(layer=[3, 4, 5] if effect else range(LAYERS)).transpose("mode", "layer").values


def sweep(generators, **design):
    """q of all layers of `ablation.effect_over_speakers`; with an effect, of those that have it."""
    return of_layers(ablation.effect_over_speakers(swept(generators, **design))["q"], design["effect"])


def verdict(generators, **design):
    """0 where some layer is beyond all controls, 1 where none is."""
    own, rival = made(generators, **design)
    return 1.0 - of_layers(ablation.verdict(own, {"rival": rival})["beyond"], design["effect"])


def flip_and_zero(rng, *, speakers, effect, clips=2):
    """q over seven layers of a paired comparison of two modes (`ablation.contrast`), each speaker with a bent."""
    shape = (speakers * clips, LAYERS)
    bent = np.repeat(rng.standard_normal((speakers, LAYERS)), clips, axis=0)
    names = np.repeat([f"s{i}" for i in range(speakers)], clips).astype(object)
    values = xr.DataArray(
        effect + bent + rng.standard_t(4, shape),
        {"speaker": ("clip", names), "layer": range(LAYERS)},
        ("clip", "layer"),
    )
    return ablation.contrast(values, 0)["q"].values


def groups(rng, *, speakers, effect, between=False, unequal=False):
    """p of one neuron between two kinds of clips (`class_contrast.compare`); random effects of speaker × emotion."""
    emotions, takes = 4, 3
    rows = [(s, e, t) for s in range(speakers) for e in range(emotions) for t in range(takes)]
    if unequal:  # some cells have one clip, some none
        rows = [x for x in rows if rng.random() < (0.3 if x[1] == x[0] % emotions else 0.9)]
    table = pd.DataFrame(rows, columns=["speaker", "label", "take"])
    cells = rng.standard_normal((speakers, emotions))
    voices = rng.standard_normal(speakers)
    first = table["speaker"] % 2 == 0 if between else table["label"] == 0
    values = voices[table["speaker"]] + cells[table["speaker"], table["label"]] + rng.standard_normal(len(table))
    values = values + effect * first.to_numpy()
    coords = {"clip": np.arange(len(table)), "speaker": ("clip", [f"s{x}" for x in table["speaker"]])}
    coords |= {"label": ("clip", [f"e{x}" for x in table["label"]])}
    coords |= {"sex": ("clip", np.where(table["speaker"] % 2, "male", "female").astype(object))}
    coords |= {"layer": [1], "neuron": [0]}
    data = xr.Dataset({"activation": (("clip", "layer", "neuron"), values[:, None, None])}, coords)
    column, a = ("sex", "female") if between else ("label", "e0")
    return class_contrast.compare(data, column, a)["p"].values.ravel()


def forgetting(rng, *, speakers, effect, k=20, sets=SETS):
    """`margin_p` of the forgotten class (`pruning.effects`): neurons pruned of one site of 576, 4 clips a speaker."""
    width, labels = 576, ["a", "b", "c"]
    size = np.exp(0.6 * rng.standard_normal(width))
    weight = size[:, None] * rng.standard_t(2, (width, len(labels)))  # what each adds to each logit
    own = np.sort(rng.choice(width, k, replace=False))
    if effect:
        own = np.sort(np.argsort(-effect * weight[:, 0] - (1 - effect) * weight.std() * rng.standard_t(2, width))[:k])
    classes = random_neurons.size_classes(size)
    drawn = [
        own,
        *(np.sort(one[own]) for one in random_neurons.draw_substitutions(classes, sets, seed=int(rng.integers(1e9)))),
    ]
    truth = np.tile(["a", "b", "c", "a"], speakers)
    clean = rng.standard_normal((len(truth), 1, 3)) + 2 * (truth[:, None, None] == np.array(labels))
    spread = np.abs(weight).mean()
    voice = np.repeat(rng.standard_t(4, (speakers, width, 3)), 4, axis=0) * spread
    lost = np.stack([(weight[one] + voice[:, one]).sum(1) for one in drawn], axis=1)
    scale = 3 * np.sqrt(k) * spread
    pruned = clean - np.tanh(lost / scale) * 3
    logit = np.stack([np.repeat(clean, len(drawn), axis=1), pruned], axis=1)
    names = np.repeat([f"s{i}" for i in range(speakers)], 4).astype(object)
    compared = xr.Dataset(
        {"logit": (("clip", "dose", "neuron_set", "target"), logit), "shared": ("dose", [0.0, k / width])},
        {
            "label": ("clip", truth.astype(object)),
            "speaker": ("clip", names),
            "dose": [0, k],
            "target": labels,
            "neuron_set": ["selected", *(f"random {i + 1}" for i in range(sets))],
        },
    )
    return pruning.effects(compared, "a")["margin_p"].sel(group="forgotten", dose=k).values.ravel()


CHOICES = ("any", "the same in all layers", "the most active")
DATA = ("by speaker", "drift")  # what is selected at random is a random set, whatever clips do
SCENARIOS = [
    *(
        Scenario(f"sweep, k = {k}", f"neurons of {data} effects", sweep, (8, 16, 24) if data == "by speaker" else (8,),
                 {"k": k, "data": data}, 0.7, "selected by 70 % target in 3 layers")
        for k in (1, 5, 20, 48)
        for data in DATA
    ),
    *(
        Scenario(f"sweep, k = {k}", "blind choice: the same in all layers", sweep, (8,), {"k": k, "how": CHOICES[1]})
        for k in (1, 20)
    ),
    *(
        Scenario(f"verdict, k = {k}", "any neurons", verdict, (8, 24), {"k": k}, 0.9,
                 "selected by 90 % target in 3 layers")
        for k in (5, 20)
    ),
    *(
        Scenario(f"verdict, k = {k}", f"blind choice: {how}", verdict, (8, 24), {"k": k, "how": how, "down": ACTIVE})
        for k in (5, 20)
        for how in (*CHOICES[1:], "the most active, nearly", "the greatest peaks", "of the strongest")
    ),
    *(
        Scenario(f"verdict, k = {k}", f"blind choice: {how}", verdict, (8, 24), {"k": k, "how": how},
                 limit="a choice by what neurons do to any target needs a rival of the same procedure")
        for k in (5, 20)
        for how in ("those that write most, nearly", "reach for their size, nearly")
    ),
    Scenario("contrast of modes", "by speaker", each(flip_and_zero), effect=1.0, planted="1 SD of speakers"),
    Scenario("groups within speakers", "speaker × emotion", each(groups), effect=1.0, planted="1 SD of speakers"),
    Scenario("groups within speakers", "speaker × emotion, unequal cells", each(groups), (8, 16, 24),
             {"unequal": True}, 1.0, "1 SD of speakers"),
    Scenario("groups between speakers", "speaker × emotion", each(groups), (16, 24), {"between": True}, 2.0,
             "2 SD of speakers"),
    Scenario("groups between speakers", "speaker × emotion, unequal cells", each(groups), (16, 24),
             {"between": True, "unequal": True}, 2.0, "2 SD of speakers"),
    Scenario("pruning", "neurons of by speaker effects", each(forgetting), effect=0.7,
             planted="selected by 70 % target"),
]  # fmt: skip
