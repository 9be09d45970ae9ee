"""Results made by hand: scores of neurons, contrasts, sweeps and what probes read, of which the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from xai_lib import corpora

LABELS = ("neutral", "happy", "angry")
SOUNDS = {"p": "plosive", "t": "plosive", "k": "plosive", "s": "fricative", "z": "fricative", "f": "fricative"}
SOUNDS |= {"m": "nasal", "n": "nasal", "ŋ": "nasal"}


def scores(values, speakers):
    """What an attribution gives, of values [clip, layer, neuron]."""
    values = np.asarray(values, float)
    return xr.Dataset(
        {"absolute": (("clip", "layer", "neuron"), np.abs(values)), "signed": (("clip", "layer", "neuron"), values)},
        {
            "clip": range(len(values)),
            "speaker": ("clip", np.array(speakers, object)),
            "layer": range(values.shape[1]),
            "neuron": range(values.shape[2]),
        },
        {"part": "hidden_state"},
    )


# ---------- contrasts


def design(speakers=16):
    """Every speaker says two statements neutrally, and with two emotions at two intensities; women are even."""
    rows = [
        {
            "speaker": f"s{voice:02d}",
            "sex": "male" if voice % 2 else "female",
            "label": label,
            "intensity": how,
            "statement": n,
        }
        for voice in range(speakers)
        for label in LABELS
        for how in ("normal", "strong")
        for n in (1, 2)
        if (label, how) != ("neutral", "strong")
    ]
    return pd.DataFrame(rows)


def dataset(clips, values):
    """What `activations` gives, of made-up values [clip, layer, neuron]."""
    about = {name: ("clip", clips[name].astype(object).to_numpy()) for name in clips}
    coords = {"clip": np.arange(len(clips)) + 5, "layer": range(1, 1 + values.shape[1]), **about}
    coords["neuron"] = range(values.shape[2])
    attrs = {"model": "made up", "part": "ffn_hidden", "frames": "speech", "skipped": "{}"}
    return xr.Dataset({"activation": (("clip", "layer", "neuron"), values.astype(np.float32))}, coords, attrs)


def angry_contrast():
    """Values in halves, with ties, higher by 1 in angry clips; the clips in no order."""
    clips = design()
    rng = np.random.default_rng(0)
    values = rng.integers(-3, 4, size=(len(clips), 2, 5)) / 2 + (clips["label"] == "angry").to_numpy()[:, None, None]
    return dataset(clips.sample(frac=1, random_state=0).reset_index(drop=True), values)


# ---------- sweeps


def neuron_sets(n_random=0, n_directions=0, target_blind=()):
    """Coordinates of the dim `neuron_set`, as a sweep has them: the selected neurons, then the controls by kind."""
    names, kinds = ["selected"], ["selected"]
    names += [f"random {number}" for number in range(1, n_random + 1)]
    kinds += n_random * ["random"]
    names += [f"direction {number}" for number in range(1, n_directions + 1)]
    kinds += n_directions * ["direction"]
    names += [*target_blind]
    kinds += len(target_blind) * ["target-blind"]
    return {"neuron_set": names, "kind": ("neuron_set", kinds)}


def selected_mask(neurons, n_neurons):
    """Which neurons are selected, bool [layer, neuron], of {layer: neurons}, as a sweep records it."""
    is_selected = np.zeros((len(neurons), n_neurons), dtype=bool)
    for row, indices in enumerate(neurons.values()):
        is_selected[row, list(indices)] = True
    return xr.DataArray(is_selected, {"layer": list(neurons)}, ("layer", "neuron"))


def without(result, kind):
    """A sweep without the controls of a kind."""
    return result.isel(neuron_set=result["kind"].values != kind)


def swept(speakers=9, clips=2, n_random=20, seed=0):
    """A sweep's `target_change` by hand: [clip, layer, mode, neuron_set], speakers with two clips each."""
    rng = np.random.default_rng(seed)
    shape = (speakers * clips, 3, 2)
    selected = rng.standard_normal(shape) - np.array([0.0, 1, 3])[:, None]
    random = rng.standard_normal((*shape, n_random))
    values = np.concatenate([selected[..., None], random], axis=-1)
    return xr.Dataset(
        {"target_change": (("clip", "layer", "mode", "neuron_set"), values)},
        {
            "layer": [1, 2, 5],
            "mode": ["flip", "zero"],
            "speaker": ("clip", np.repeat([f"s{i}" for i in range(speakers)], clips).astype(object)),
            **neuron_sets(n_random),
        },
    )


def planted_sweep(rng, dims, **coords):
    """A sweep by hand: `target_change` and its null on further `dims`, with a large effect where `coords` are odd."""
    shape = [len(coords[dim]) for dim in dims]
    odd = np.indices(shape).sum(0) % 2
    random = rng.normal(0, 0.3, (1, *shape, 20)) + rng.normal(0, 0.05, (9, *shape, 20))
    selected = -3 * odd + rng.normal(0, 0.3, (9, *shape))
    values = np.concatenate([selected[..., None], random], axis=-1)
    speakers = ("clip", [f"s{i}" for i in range(9)])
    return xr.Dataset(
        {"target_change": (("clip", *dims, "neuron_set"), values)}, {**coords, "speaker": speakers, **neuron_sets(20)}
    )


# ---------- pruning


def compared():
    """Ten speakers, an angry and a calm clip each. The chosen neurons take 2 off the angry clips' own logit."""
    rng = np.random.default_rng(0)
    names, labels = ["angry", "calm", "sad"], np.tile(["angry", "calm"], 10)
    logit = np.repeat(np.repeat(rng.standard_normal((20, 1, 1, 3)), 2, 1), 4, 2)
    logit[labels == "angry", 1, 0, 0] -= 2
    logit[:, 1, 1:] += rng.standard_normal((20, 3, 1))  # random sets move all logits alike
    return xr.Dataset(
        {"logit": (("clip", "dose", "neuron_set", "target"), logit), "shared": ("dose", [0.0, 0.0])},
        {
            "clip": range(20),
            "label": ("clip", labels.astype(object)),
            "dose": [0, 5],
            "target": names,
            "speaker": ("clip", np.repeat([f"s{i}" for i in range(10)], 2)),
            "neuron_set": ["selected", "r1", "r2", "r3"],
        },
    )


# ---------- time courses


def courses(activation, level, statement=None):
    """Courses [speaker, position, neuron] as a Dataset, a clip a speaker."""
    n, bins = activation.shape[:2]
    coords = {
        "clip": np.arange(n),
        "speaker": ("clip", np.array([f"s{i:02d}" for i in range(n)], object)),
        "position": (np.arange(bins) + 0.5) / bins,
        "layer": [4],
        "neuron": np.arange(activation.shape[2]),
    }
    data = {"activation": (("clip", "position", "layer", "neuron"), activation[:, :, None])}
    out = xr.Dataset({**data, "level": (("clip", "position"), level)}, coords)
    out = out.assign(shuffled=0 * out["activation"] + 7, shuffled_level=0 * out["level"] - 30)
    return out if statement is None else out.assign_coords(statement=("clip", statement))


# ---------- what probes read


def probed(layers, *, speakers=8, per=8, seed=0, first=0, sounds=True):
    """What `probes.read` gives, for clips of eight emotions by some speakers, each with all `SOUNDS`.

    `layers` are functions from a table of examples (label, phoneme, manner, speaker, clip) to values [example, neuron].
    """
    rng, table = np.random.default_rng(seed), []
    for speaker in range(first, first + speakers):
        for place in range(per):
            cell = corpora.EMOTIONS[place % 8], ["normal", "strong"][place // 8 % 2], 1 + (speaker + place) % 2
            table.append([f"s{speaker:02d}", *cell])
    clips = pd.DataFrame(table, columns=["speaker", "label", "intensity", "statement"])
    clips = clips.assign(clip=100 * first + np.arange(len(clips)), phoneme="", manner="")
    every = clips.loc[clips.index.repeat(len(SOUNDS))].reset_index(drop=True)
    every["phoneme"] = np.tile([*SOUNDS], len(clips))
    every["manner"] = every["phoneme"].map(SOUNDS)
    coords = {"clip": clips["clip"].to_numpy(), "layer": np.arange(len(layers))}
    coords |= {
        name: ("clip", clips[name].astype(object).to_numpy())
        for name in clips
        if name not in ("clip", "phoneme", "manner")
    }
    dims, by_clip = ("layer", "neuron"), np.stack([layer(clips, rng) for layer in layers], axis=1)
    out = xr.Dataset({"clip_mean": (("clip", *dims), by_clip)}, {**coords, "neuron": np.arange(by_clip.shape[2])})
    if not sounds:
        return out
    out["sound_mean"] = ("sound", *dims), np.stack([layer(every, rng) for layer in layers], axis=1)
    about = {name: ("sound", every[name].astype(object).to_numpy()) for name in ("phoneme", "manner")}
    return out.assign_coords(**about, sound_clip=("sound", every["clip"].to_numpy()))


def code(names, seed, width=24):
    """A random vector for each name, the same every time."""
    table = {name: row for name, row in zip(sorted(set(names)), range(99))}
    vectors = np.random.default_rng(seed).standard_normal((99, width))
    return vectors[[table[name] for name in names]]


def noise(table, rng):
    """What a layer holds that knows nothing."""
    return rng.standard_normal((len(table), 24))


def manners(table, rng):
    """What a layer holds that knows manners, and nothing else of a phoneme, and emotions."""
    return code(table["manner"], 1) + code(table["label"], 2) + 0.1 * noise(table, rng)
