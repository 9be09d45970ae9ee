"""What every public method gives and chooses is what it was: `golden`. And the comparison fails where it is not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from tests.golden import adapter, comparison, inputs, record, store
from xai_lib import targets
from xai_lib.corpora import sampling

pytestmark = pytest.mark.heavy
LARGEST = 10_000_000  # bytes of all arrays


@pytest.fixture(autouse=True)
def _one_thread():
    """What is found with more threads differs by rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def differences(section):
    """What differs today from the golden arrays of a section."""
    return comparison.differences(section, store.read(store.path(section)), record.found(section))


# Sections that take over ten seconds of a core: `make test-all` runs them.
LONG = ("sets", "ast", "effect", "prune", "decoding", "speakers", "identify", "sweep")


@pytest.mark.parametrize(
    "section", [pytest.param(name, marks=[pytest.mark.full] * (name in LONG)) for name in record.SECTIONS]
)
def test_golden_results_are_unchanged(section):
    """The results and choices of a section equal its golden arrays."""
    said = differences(section)
    assert not said, "\n".join(said)


def test_golden_arrays_cover_sections_and_are_small():
    """There are golden arrays of every section and of no other, in less than 10 MB."""
    assert set(LONG) <= set(record.SECTIONS)
    assert {file.stem for file in store.ARRAYS.iterdir()} == set(record.SECTIONS)
    assert sum(file.stat().st_size for file in store.ARRAYS.iterdir()) < LARGEST


def test_golden_arrays_hold_no_local_paths():
    """The golden arrays contain no path of a home, temporary or project folder."""
    folders = {"/home/", "/Users/", f"{Path.home()}/", f"{tempfile.gettempdir()}/", f"{Path(__file__).parents[1]}/"}
    for file in store.ARRAYS.iterdir():
        content = file.read_bytes()
        assert not any(folder.encode() in content for folder in folders)


SEEDS = {
    "SEED_NOISE": "exhaustive",
    "SEED_COURSE": "course",
    "SEED_FRAME_DELETION": "deletion",
    "SEED_GRADIENT_SHAP": "deletion",
    "SEED_SEGMENT_RESPONSE": "segment",
}


@pytest.mark.parametrize("name", SEEDS)
def test_golden_detects_changed_seed_texts(name, monkeypatch):
    """A changed text that seeds random draws makes results differ from the golden arrays."""
    monkeypatch.setattr(targets, name, "another")
    assert differences(SEEDS[name])


@pytest.mark.parametrize("name", sorted(name for name in vars(targets) if name.startswith("SEED_")))
def test_golden_detects_changed_seed_keys(name, monkeypatch):
    """A change of any text that seeds makes the keys, and what is drawn from them, differ from the golden ones."""
    monkeypatch.setattr(targets, name, "another")
    told = " ".join(differences("seeds"))
    assert "keys" in told and "first_numbers" in told


def test_golden_detects_dropped_clips(monkeypatch):
    """A clip missing from the inputs, or from a balanced draw, is reported as a difference."""
    drawn = sampling.balanced
    monkeypatch.setattr(inputs, "few", lambda: inputs.test().head(1))
    assert any("sizes" in sentence for sentence in differences("segment"))
    monkeypatch.setattr(sampling, "balanced", lambda clips, n, **options: drawn(clips, n - 1, **options))
    assert differences("clips")


@pytest.fixture
def golden():
    """A small result, and a copy that may be changed."""
    values = xr.DataArray([[0.5, np.nan, 2.0], [3.0, -1.0, 0.0]], dims=("clip", "neuron"))
    coords = {"clip": [3, 8], "label": ("clip", ["sad", None])}
    result = xr.Dataset({"delta": values, "neurons": ("neuron", [4, 2, 9])}, coords, {"mode": "flip", "share": 0.5})
    return {"sweep": store.plain(result)}


def told(golden, **changes):
    """What differs when something of the result is another."""
    return comparison.differences("sweep", golden, {"sweep": golden["sweep"].assign(changes)})


def test_differences_ignores_rounding(golden):
    """There are no differences between equal results, nor for floats that change by a millionth."""
    assert comparison.differences("sweep", golden, golden) == []
    assert told(golden, delta=golden["sweep"]["delta"] * (1 + 1e-6)) == []


def test_differences_finds_changed_floats(golden):
    """The comparison reports a float that changes by 0.0001, with its place, and one that becomes NaN."""
    moved = golden["sweep"]["delta"].copy()
    moved[1, 0] += 1e-4
    (sentence,) = told(golden, delta=moved)
    assert "sweep, sweep, delta" in sentence and "by 0.0001 at most, at (1, 0)" in sentence
    moved[1, 0] = np.nan
    assert told(golden, delta=moved)


def test_differences_finds_changed_choices(golden):
    """The comparison reports another integer, type or label, and each attribute that changes."""
    assert told(golden, neurons=("neuron", [4, 2, 8]))
    assert told(golden, neurons=("neuron", [4.0, 2.0, 9.0]))
    assert told(golden, label=("clip", np.array(["sad", "calm"], object)))
    changed = golden["sweep"].assign_attrs(mode="zero", share=0.51)
    assert len(comparison.differences("sweep", golden, {"sweep": changed})) == 2


def test_differences_finds_missing_and_new_results(golden):
    """The comparison reports variables and results that are missing or new, and sizes that change."""
    assert "the variable neurons is missing" in str(
        comparison.differences("sweep", golden, {"sweep": golden["sweep"].drop_vars("neurons")})
    )
    assert "the variable more is new" in str(told(golden, more=1.0))
    assert "the result other is new" in str(
        comparison.differences("sweep", golden, golden | {"other": golden["sweep"]})
    )
    assert comparison.differences("sweep", golden, {})
    assert comparison.differences("sweep", golden, {"sweep": golden["sweep"].isel(clip=[0])})


def test_old_names_adapts_renamed_dimensions(golden, monkeypatch):
    """Renamed dimensions, variables, coordinates and texts differ until `old_names` has their former names."""
    renamed = {"sweep": golden["sweep"].rename(clip="recording", delta="change", label="emotion")}
    renamed["sweep"] = renamed["sweep"].assign_attrs(mode="turned").rename({"neurons": "selected"})
    assert len(comparison.differences("sweep", golden, adapter.old_names("sweep", renamed))) > 4
    monkeypatch.setattr(adapter, "DIMENSIONS", {"recording": "clip"})
    monkeypatch.setattr(adapter, "VARIABLES", {"change": "delta", "sweep/selected": "neurons"})
    monkeypatch.setattr(adapter, "COORDINATES", {"emotion": "label"})
    monkeypatch.setattr(adapter, "TEXTS", {"turned": "flip"})
    assert comparison.differences("sweep", golden, adapter.old_names("sweep", renamed)) == []
    assert comparison.differences("other", golden, adapter.old_names("other", renamed))


def test_old_names_adapts_texts_everywhere(monkeypatch):
    """The adapter replaces texts in values and within attributes, and the names of attributes and items."""
    result = xr.Dataset({"who": ("set", ["selected", "random 1"])}, attrs={"told": '{"selected": [3, "turned"]}'})
    monkeypatch.setattr(adapter, "TEXTS", {"selected": "chosen", "turned": "flip"})
    monkeypatch.setattr(adapter, "ATTRIBUTES", {"told": "neurons"})
    monkeypatch.setattr(adapter, "ITEMS", {"compared": "compare"})
    found = adapter.old_names("prune", {"compared": store.plain(result)})["compare"]
    assert list(found["who"].values) == ["chosen", "random 1"]
    assert found.attrs == {"neurons": '{"chosen": [3, "flip"]}'}


def test_store_keeps_results(golden, tmp_path):
    """Tables, multi-indexed arrays and lists are equal after `store` writes and reads them; paths keep file names."""
    table = pd.DataFrame({"path": ["/somewhere/far/a.wav", None], "right": [True, False], "n": [1, 2]}, ["x", "y"])
    parts = pd.MultiIndex.from_tuples([("block", 1), ("block", 2)], names=["part", "layer"])
    units = xr.DataArray([1.0, 2.0], xr.Coordinates.from_pandas_multiindex(parts, "unit"), name="score")
    items = golden | {"table": store.plain(table), "units": store.plain(units), "list": store.plain(["a", "b"])}
    store.write(items, tmp_path / "kept.nc")
    assert comparison.differences("kept", items, store.read(tmp_path / "kept.nc")) == []
    assert list(items["table"]["path"].values) == ["a.wav", ""]
