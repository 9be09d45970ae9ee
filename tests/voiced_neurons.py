"""Neurons that follow emotions, voices and what is measured of clips, among noise; and what is said of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from xai_lib.corpora.filenames import EMOTIONS

SPEAKERS, PER, NEURONS = 10, 12, 30
LEXICON = pd.DataFrame(
    {"low": ["quiet", "low-pitched"], "high": ["loud", "high-pitched"]},
    index=pd.Index(["level_db", "f0"], name="feature"),
)


def emotional(speakers=10, neurons=40):
    """10 speakers × 8 emotions × 2 clips; noise, but for neuron 3 (angry) and 5 (a voice); layer 2 is all noise."""
    rng = np.random.default_rng(3)
    labels = np.tile(np.repeat(EMOTIONS, 2), speakers)
    names = np.repeat([f"s{i}" for i in range(speakers)], 2 * len(EMOTIONS))
    values = rng.standard_normal((len(labels), 2, neurons))
    values[:, 0, 3] += 4 * (labels == "angry")
    values[:, 0, 5] += 10 * np.repeat(np.arange(speakers), 16)
    return xr.DataArray(
        values,
        dims=("clip", "layer", "neuron"),
        coords={
            "clip": np.arange(len(labels)) + 100,
            "label": ("clip", labels.astype(object)),
            "speaker": ("clip", names.astype(object)),
            "layer": [1, 2],
            "neuron": np.arange(neurons),
        },
    )


def measured():
    """Level and F0 [clip] of ten speakers, whose voices differ far more than their clips; no F0 in a tenth."""
    rng = np.random.default_rng(5)
    voice = np.repeat(20 * rng.standard_normal((SPEAKERS, 2)), PER, axis=0)
    table = pd.DataFrame(rng.standard_normal((SPEAKERS * PER, 2)) + voice, columns=["level_db", "f0"])
    table.loc[::10, "f0"] = np.nan
    return table.set_index(1000 + table.index)


def following(measured):
    """Noise, but in layer 1 neuron 0 follows level, 1 its reverse, 2 F0, and 3 the speakers' mean level alone."""
    rng = np.random.default_rng(6)
    values = rng.standard_normal((SPEAKERS * PER, 2, NEURONS))
    level, speakers = measured["level_db"].to_numpy(), np.repeat([f"s{i}" for i in range(SPEAKERS)], PER)
    values[:, 0, 0] = np.exp(level / 9)
    values[:, 0, 1] = -level
    values[:, 0, 2] = measured["f0"].fillna(99)
    values[:, 0, 3] += 9 * pd.Series(level).groupby(speakers).transform("mean")
    values[:, 1, 29] = 4.0  # never changes
    coords = {"clip": measured.index.to_numpy(), "layer": [1, 2], "neuron": np.arange(NEURONS)}
    return xr.DataArray(values, {**coords, "speaker": ("clip", speakers.astype(object))}, ("clip", "layer", "neuron"))


def described():
    """Descriptions: neuron 0 of layer 1 loud and not quiet, 1 the reverse, 4 nothing, others at random."""
    z = np.random.default_rng(1).choice([-3.0, 3.0], (2, NEURONS, 2))
    z[0, :2], z[0, 4] = [[3, -3], [-3, 3]], 0
    coords = {"layer": [1, 2], "neuron": np.arange(NEURONS), "word": ["loud", "quiet"]}
    z = xr.DataArray(z, coords, ("layer", "neuron", "word"))
    return xr.Dataset({"z": z, "chance": xr.concat([z[:, ::-1].assign_coords(neuron=z["neuron"]), 0 * z], "draw")})


def captions(activations, measured):
    """Loud in the louder half of each speaker's clips, quiet in the rest; a sixth says neither."""
    middle = measured["level_db"].groupby(activations["speaker"].values).transform("median")
    said = pd.Series(np.where(measured["level_db"] > middle, "a loud voice", "a quiet voice"), measured.index)
    said[::6] = "an ordinary voice"
    return said


def said_of(activations, **neurons):
    """Adjectives, false but for the (layer, neuron)s given."""
    names = ["quiet", "low-pitched", "loud", "high-pitched", "odd"]
    coords = {"layer": [1, 2], "neuron": np.arange(NEURONS), "adjective": names}
    found = xr.DataArray(np.zeros((2, NEURONS, 5), bool), coords, ("layer", "neuron", "adjective"))
    for name, places in neurons.items():
        for layer, neuron in places:
            found.loc[{"layer": layer, "neuron": neuron, "adjective": name.replace("_", "-")}] = True
    return found
