"""Sweeps of ablation, verdicts, contrasts and pruning, on networks that are sums over neurons.

Flipping a set of neurons moves the target by a saturating sum over its neurons, with far tails and greater for larger
neurons, as in real networks; what random sets do is made of the same neurons, so that all the library's own code is
tried: size classes, substitutes, ranks.
"""

import numpy as np
import pandas as pd
import xarray as xr

from xai_lib import ablation, contrasts, nulls, pruning

from .framework import Scenario

LAYERS, WIDTH, SETS = 7, 144, 40


def network(rng, layers=LAYERS, width=WIDTH):
    """Sizes and weights [layer, neuron]: the stream carries sizes and part of the weights from layer to layer."""
    size = np.exp(0.6 * rng.standard_normal(width) + 0.2 * rng.standard_normal((layers, width)))
    carried = rng.standard_t(2, (1, width))
    weight = size * (carried + rng.standard_t(2, (layers, width)))
    return size, weight


def moved(weight, sets, own, cell):
    """What each clip's target is moved by, [clip, set]: a saturating sum of `weight` and of what is the clip's own."""
    members = np.zeros((len(sets), weight.shape[-1]))
    for place, neurons in enumerate(sets):
        members[place, neurons] = 1
    scale = 15 * np.sqrt(members[0].sum()) * np.abs(weight).mean()
    return scale * np.tanh((weight + own[cell]) @ members.T / scale)


def selected(how, rng, size, weight, k):
    """{layer: neurons}: how a choice that knows nothing of the target names them."""
    layers, width = size.shape
    if how == "any":
        return {at: np.sort(rng.choice(width, k, replace=False)) for at in range(layers)}
    if how == "the same in all layers":
        return dict.fromkeys(range(layers), np.sort(rng.choice(width, k, replace=False)))
    if how == "the most active":
        return {at: np.sort(np.argsort(-size[at])[:k]) for at in range(layers)}
    if how == "the most active, nearly":
        noisy = size * np.exp(0.1 * rng.standard_normal(size.shape))
        return {at: np.sort(np.argsort(-noisy[at])[:k]) for at in range(layers)}
    if how == "the greatest peaks":
        peaks = size * np.abs(rng.standard_normal((40, *size.shape))).max(axis=0)
        return {at: np.sort(np.argsort(-peaks[at])[:k]) for at in range(layers)}
    raise ValueError(f"unknown choice {how!r}")


def swept(rng, *, speakers, k, how="any", data="independent", effect=0.0, clips=2, sets=SETS):
    """A result of `ablation.sweep` made of such a network. A planted `effect` is of the layers 3 to 5.

    It is the share of what would be seen of the target that the choice was made by: 1 takes the neurons that lower the
    target most.
    """
    size, weight = network(rng)
    own = selected(how, rng, size, weight, k)
    if effect:
        seen = effect * weight + (1 - effect) * weight.std() * rng.standard_t(2, weight.shape)
        own |= {at: np.sort(np.argsort(seen[at])[:k]) for at in (3, 4, 5)}
    n, order = speakers * clips, np.arange(clips)
    units = {"independent": np.arange(n), "by speaker": np.repeat(np.arange(speakers), clips)}
    units |= {"by sentence": np.tile(order, speakers), "drift": np.zeros(n, int)}
    trend = np.tile(order - order.mean(), speakers)[:, None] if data == "drift" else 1
    sizes = xr.DataArray(size, {"layer": range(LAYERS)}, ("layer", "neuron"))
    names = [nulls.BLIND[0]]
    values = np.empty((n, LAYERS, 1 + sets + len(names)))
    rms = np.empty((LAYERS, 1 + sets))
    for at in range(LAYERS):
        drawn = [
            one
            for (one,) in nulls.sets(WIDTH, sizes, {at: own[at]}, nulls=sets, directions=0, seed=int(rng.integers(1e9)))
        ]
        rms[at] = nulls.size(sizes, [at], [[one] for one in drawn])
        drawn.append(np.argsort(-size[at])[:k])
        clip = np.abs(weight[at]).mean() * rng.standard_t(4, (n, WIDTH))
        values[:, at] = moved(weight[at], drawn, clip, units[data]) * (1 + 0.3 * trend if data == "drift" else 1)
        values[:, at] += 0.1 * values[:, at].std() * rng.standard_normal(values[:, at].shape)
    coords = {"layer": range(LAYERS), "mode": ["flip"]}
    coords["speaker"] = "clip", np.repeat([f"s{i}" for i in range(speakers)], clips).astype(object)
    dims = ("clip", "layer", "mode")
    data_vars = {
        "delta": (dims, values[:, :, None, 0]),
        "null_delta": ((*dims, "null"), values[:, :, None, 1 : 1 + sets]),
        "blind_delta": ((*dims, "blind"), values[:, :, None, 1 + sets :]),
        "null_sets": ("layer", [nulls.distinct_sets(sizes, {at: own[at]}) for at in range(LAYERS)]),
        "null_overlap": ("layer", np.full(LAYERS, k / WIDTH)),
        "magnitude": ("layer", rms[:, 0]),
        "null_magnitude": (("layer", "null"), rms[:, 1:]),
    }
    return xr.Dataset(data_vars, coords | {"blind": names})


def sweep(rng, **design):
    """q of all layers of `ablation.summary`; with an effect, of those that have it."""
    layers = [3, 4, 5] if design["effect"] else range(LAYERS)
    return ablation.summary(swept(rng, **design))["q"].sel(layer=layers).values.ravel()


def verdict(rng, **design):
    """0 where some layer is beyond all controls, 1 where none is."""
    layers = [3, 4, 5] if design["effect"] else range(LAYERS)
    found = ablation.verdict(swept(rng, **design))["beyond"].sel(layer=layers)
    return [0.0 if bool(found.any()) else 1.0]


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
    """p of one neuron between two kinds of clips (`contrasts.compare`), with random effects of speaker × emotion."""
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
    return contrasts.compare(data, column, a)["p"].values.ravel()


def forgetting(rng, *, speakers, effect, k=20, sets=SETS):
    """`margin_p` of the forgotten class (`pruning.effects`): neurons pruned of one site of 576, 4 clips a speaker."""
    width, labels = 576, ["a", "b", "c"]
    size = np.exp(0.6 * rng.standard_normal(width))
    weight = size[:, None] * rng.standard_t(2, (width, len(labels)))  # what each adds to each logit
    own = np.sort(rng.choice(width, k, replace=False))
    if effect:
        own = np.sort(np.argsort(-effect * weight[:, 0] - (1 - effect) * weight.std() * rng.standard_t(2, width))[:k])
    classes = nulls.size_classes(size)
    drawn = [own, *(np.sort(one[own]) for one in nulls.substitutes(classes, sets, seed=int(rng.integers(1e9))))]
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
        {"logit": (("clip", "dose", "who", "target"), logit), "shared": ("dose", [0.0, k / width])},
        {
            "label": ("clip", truth.astype(object)),
            "speaker": ("clip", names),
            "dose": [0, k],
            "target": labels,
            "who": ["chosen", *(f"random {i + 1}" for i in range(sets))],
        },
    )
    return pruning.effects(compared, "a")["margin_p"].sel(group="forgotten", dose=k).values.ravel()


CHOICES = ("any", "the same in all layers", "the most active")
DATA = ("independent", "by speaker", "by sentence", "drift")
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
        Scenario(f"verdict, k = {k}", f"blind choice: {how}", verdict, (8, 24), {"k": k, "how": how},
                 0.7 if how == "any" else 0, "selected by 70 % target in 3 layers" if how == "any" else "")
        for k in (5, 20)
        for how in (*CHOICES, "the most active, nearly", "the greatest peaks")
    ),
    Scenario("contrast of modes", "by speaker", flip_and_zero, effect=1.0, planted="1 SD of speakers"),
    Scenario("groups within speakers", "speaker × emotion", groups, effect=1.0, planted="1 SD of speakers"),
    Scenario("groups within speakers", "speaker × emotion, unequal cells", groups, (8, 16, 24), {"unequal": True}, 1.0,
             "1 SD of speakers"),
    Scenario("groups between speakers", "speaker × emotion", groups, (16, 24), {"between": True}, 2.0,
             "2 SD of speakers"),
    Scenario("groups between speakers", "speaker × emotion, unequal cells", groups, (16, 24),
             {"between": True, "unequal": True}, 2.0, "2 SD of speakers"),
    Scenario("pruning", "neurons of by speaker effects", forgetting, effect=0.7, planted="selected by 70 % target"),
]  # fmt: skip
