"""Uninterpretable neurons: planted ones, random ones, and counts by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xai_lib import plots
from xai_lib.dissection import interpretability

CLIPS, NEURONS = 60, 50


def words(texts):
    """A text encoder: one dimension per distinct text."""
    names = sorted(set(texts))
    return np.eye(len(names))[[names.index(text) for text in texts]]


@pytest.fixture
def captions():
    """Six kinds of caption, ten clips each."""
    return pd.Series([f"It is of kind {'abcdef'[i % 6]}." for i in range(CLIPS)], 100 + np.arange(CLIPS))


@pytest.fixture
def activations(captions):
    """Layer 1: each neuron is driven by one kind of caption; layer 2: noise."""
    values = np.random.default_rng(0).standard_normal((CLIPS, 2, NEURONS))
    kind = np.arange(CLIPS) % 6
    values[:, 0] += 9 * (kind[:, None] == np.arange(NEURONS) % 6)
    coords = {"clip": captions.index.to_numpy(), "layer": [1, 2], "neuron": np.arange(NEURONS)}
    return xr.DataArray(values, coords, ("clip", "layer", "neuron"))


def run(captions, activations, **options):
    return interpretability.uninterpretable(
        captions, activations, encoder=words, **{"clusters": 6, "draws": 40, **options}
    )


def test_neurons_whose_top_clips_share_a_caption_are_interpretable_and_random_ones_are_as_the_null(
    captions, activations
):
    found = run(captions, activations).squeeze()
    assert (found["share"].sel(layer=1) == 0).all() and (found["support"].sel(layer=1) == 5).all()
    assert found["share"].dims == ("tau", "layer") or set(found["share"].dims) == {"tau", "layer"}
    random = found.sel(layer=2)
    assert ((random["low"] <= 0) & (random["high"] >= 0)).all() and (random["p"] > 0.05).all()
    np.testing.assert_allclose(random["share"], random["chance"].mean("draw"), atol=0.15)
    first = found.sel(layer=1, tau=4)
    assert float(first["p"]) < 1e-3 and float(first["high"]) < 0
    assert float(first["difference"]) == pytest.approx(float(first["share"] - first["chance"].mean("draw")))


def test_the_null_is_of_random_clips():
    """k = 2, tau = 2 of two kinds, thirty clips each: two random clips differ in kind in 30 of 59 draws."""
    captions = pd.Series(["kind a", "kind b"] * 30)
    values = xr.DataArray(
        np.random.default_rng(0).standard_normal((60, 1, 400)), {"layer": [0]}, ("clip", "layer", "neuron")
    )
    found = run(captions, values.assign_coords(clip=np.arange(60)), clusters=2, k=2, tau=2, draws=60)
    assert float(found["chance"].mean()) == pytest.approx(30 / 59, abs=0.02)


def test_neurons_that_share_their_clips_share_them_in_the_null(captions, activations):
    """A layer of one neuron many times over: in each draw of the null all are interpretable, or none."""
    alike = activations.copy(data=activations.isel(neuron=[0] * NEURONS).values)
    chance = run(captions, alike, tau=2)["chance"].sel(layer=2)
    assert set(np.unique(chance)) == {0, 1}


def test_neurons_that_follow_voices_are_as_the_null():
    """16 voices of 4 clips, who each have a favourite kind of caption; neurons know who speaks, and nothing else."""
    p = []
    for seed in range(6):
        rng, speakers = np.random.default_rng(seed), np.repeat(np.arange(16), 4)
        kinds = np.where(rng.random(64) < 0.7, rng.integers(0, 4, 16)[speakers], rng.integers(0, 4, 64))
        values = 2 * rng.standard_normal((16, 1, 200))[speakers] + rng.standard_normal((64, 1, 200))
        coords = {"clip": np.arange(64), "layer": [0], "speaker": ("clip", speakers.astype(str).astype(object))}
        data = xr.DataArray(values, coords, ("clip", "layer", "neuron"))
        found = run(pd.Series([f"kind {'abcd'[i]}" for i in kinds]), data, clusters=4, tau=(4, 5))
        p += found["p"].values.ravel().tolist()
        free = run(pd.Series([f"kind {'abcd'[i]}" for i in kinds]), data.drop_vars("speaker"), clusters=4, tau=4)
        assert float(free["difference"].squeeze()) < float(found["difference"].sel(tau=4).squeeze())
    assert np.mean(np.array(p) < 0.05) < 0.2, p


def test_more_is_asked_with_a_larger_tau(captions, activations):
    found = run(captions, activations, tau=(1, 2, 3, 4, 5, 6), k=(3, 5))
    for name in ("share", "chance"):
        assert (found[name].sel(k=5, tau=slice(1, 5)).diff("tau") >= 0).all()
    assert (found["share"].sel(tau=1) == 0).all()
    assert found["share"].sel(k=5, tau=6).isnull().all() and found["share"].sel(k=3, tau=4).isnull().all()


def test_the_same_seed_gives_the_same_and_the_names_of_clusters_do_not_matter(captions, activations, monkeypatch):
    first, again = (run(captions, activations, clusters=(3, 6), seed=4) for _ in range(2))
    assert first.identical(again)
    from sklearn.cluster import KMeans

    real = KMeans.fit_predict
    monkeypatch.setattr(KMeans, "fit_predict", lambda self, *a, **o: (real(self, *a, **o) + 1) % self.n_clusters)
    assert first.identical(run(captions, activations, clusters=(3, 6), seed=4))


def test_the_order_of_clips_does_not_matter_where_nothing_ties(captions, activations):
    rows = np.random.default_rng(1).permutation(CLIPS)
    one, two = (run(captions, data, draws=3) for data in (activations, activations.isel(clip=rows)))
    xr.testing.assert_equal(one["share"], two["share"])


def test_a_clip_without_caption_is_left_out_and_named(captions, activations):
    """Neuron 0's strongest clip has none: its next five count, and no other neuron is lost."""
    lacking = int(activations["clip"][activations.sel(layer=1, neuron=0).argmax("clip")])
    for gap in (
        captions.where(captions.index != lacking),
        captions.drop(lacking),
        captions.replace(captions[lacking], captions[lacking]).mask(captions.index == lacking, ""),
    ):
        with pytest.warns(UserWarning, match=str(lacking)):
            found = run(gap, activations)
        assert (found["share"].sel(layer=1) == 0).all() and found.attrs["clips"] == CLIPS - 1
        assert str(lacking) in found.attrs["skipped"]


def test_every_sentence_of_a_caption_counts(activations, captions):
    """Each clip's own sentence first, its kind's second: the kinds are found among the second."""
    own = pd.Series([f"Clip {'xyz'[i % 3]}. {text}" for i, text in enumerate(captions)], captions.index)
    found = run(own, activations, clusters=9)
    assert (found["share"].sel(layer=1) == 0).all() and found.attrs["sentences"] == 9


def test_neurons_that_never_change_count_in_no_share(captions, activations):
    dead = activations.copy()
    dead[:, 0, :25] = 1.0
    found = run(captions, dead)
    assert (found["share"].sel(layer=1) == 0).all() and int(found["support"].isnull().sum()) == 25
    dead[:, 1] = 0.0
    assert run(captions, dead)["share"].sel(layer=2).isnull().all()


def test_ties_are_not_broken_by_the_order_of_clips():
    """Ten clips of a kind stand first; neurons that are 1 on half of the clips have no claim to them."""
    captions = pd.Series(["kind a"] * 10 + ["kind b", "kind c", "kind d", "kind e", "kind f"] * 10)
    values = xr.DataArray(np.zeros((60, 1, 40)), {"clip": np.arange(60), "layer": [0]}, ("clip", "layer", "neuron"))
    values[:30] = 1.0
    shares = [float(run(captions, values, tau=5, draws=2, seed=seed)["share"].squeeze()) for seed in range(8)]
    assert np.mean(shares) > 0.5


def test_neurons_of_several_parts(captions, activations):
    index = pd.MultiIndex.from_tuples(
        [("a", 1, n) for n in range(NEURONS)] + [("b", 2, n) for n in range(NEURONS)], names=["part", "layer", "neuron"]
    )
    coords = xr.Coordinates.from_pandas_multiindex(index, "unit").assign(clip=captions.index.to_numpy())
    found = run(captions, xr.DataArray(activations.values.reshape(CLIPS, -1), coords, ("clip", "unit")))
    whole = run(captions, activations)
    xr.testing.assert_equal(found["share"].sel(part="a", layer=1, drop=True), whole["share"].sel(layer=1, drop=True))
    assert found["share"].sel(part="a", layer=2).isnull().all()
    assert (found["support"].sel(part="a", layer=1).values == 5).all()


def test_what_cannot_be_clustered_is_refused_in_words(captions, activations):
    with pytest.raises(ValueError, match="6 distinct sentences are too few for 11 clusters"):
        run(captions, activations, clusters=11)
    with pytest.raises(ValueError, match="3 clips have a caption, and k is 5"), pytest.warns(UserWarning):
        run(captions[:3], activations)


def test_a_result_can_be_saved(captions, activations, tmp_path):
    found = run(captions, activations)
    found.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "x.nc", engine="h5netcdf"), found)


def test_the_figure_has_a_curve_and_a_band_for_each_tau(captions, activations):
    found = run(captions, activations, clusters=(3, 6), k=(5, 6))
    figure = plots.uninterpretable(found.sel(k=5))
    assert len(figure.axes) == 2 and [ax.get_title() for ax in figure.axes] == ["clusters 3", "clusters 6"]
    for ax, n in zip(figure.axes, (3, 6)):
        for tau in (3, 4, 5):
            expected = 100 * found["share"].sel(k=5, clusters=n, tau=tau).values
            assert any(len(line.get_ydata()) == 2 and np.allclose(line.get_ydata(), expected) for line in ax.lines)
        assert len(ax.collections) >= 3 and ax.get_xlabel() == "layer"
    assert "(%)" in figure.axes[0].get_ylabel()
    with pytest.raises(ValueError, match="clusters, k"):
        plots.uninterpretable(found)
