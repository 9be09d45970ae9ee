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


def test_uninterpretable_separates_planted_from_random(captions, activations):
    """Neurons whose top clips share a caption are all interpretable, and random ones as often as by chance."""
    found = run(captions, activations).squeeze()
    assert (found["share"].sel(layer=1) == 0).all() and (found["support"].sel(layer=1) == 5).all()
    assert set(found["share"].dims) == {"tau", "layer"}
    random = found.sel(layer=2)
    assert ((random["low"] <= 0) & (random["high"] >= 0)).all() and (random["p"] > 0.05).all()
    np.testing.assert_allclose(random["share"], random["chance"].mean("draw"), atol=0.15)
    first = found.sel(layer=1, tau=4)
    assert float(first["p"]) < 1e-3 and float(first["high"]) < 0
    assert float(first["difference"]) == pytest.approx(float(first["share"] - first["chance"].mean("draw")))


def test_uninterpretable_null_draws_random_clips():
    """With k = tau = 2 and two kinds of 30 clips each, chance is 30 / 59: that two random clips differ in kind."""
    captions = pd.Series(["kind a", "kind b"] * 30)
    values = xr.DataArray(
        np.random.default_rng(0).standard_normal((60, 1, 400)), {"layer": [0]}, ("clip", "layer", "neuron")
    )
    found = run(captions, values.assign_coords(clip=np.arange(60)), clusters=2, k=2, tau=2, draws=60)
    assert float(found["chance"].mean()) == pytest.approx(30 / 59, abs=0.02)


def test_uninterpretable_null_keeps_shared_clips(captions, activations):
    """In a layer of copies of one neuron, all are interpretable or none in each draw of the null distribution."""
    alike = activations.copy(data=activations.isel(neuron=[0] * NEURONS).values)
    chance = run(captions, alike, tau=2)["chance"].sel(layer=2)
    assert set(np.unique(chance)) == {0, 1}


def test_uninterpretable_null_keeps_speakers():
    """Neurons that follow only voices are at chance, and look more interpretable where speakers are not known."""
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


def test_uninterpretable_share_rises_with_tau(captions, activations):
    """The share and its chance level never fall as tau rises; the share is 0 at tau = 1 and NaN where tau exceeds k."""
    found = run(captions, activations, tau=(1, 2, 3, 4, 5, 6), k=(3, 5))
    for name in ("share", "chance"):
        assert (found[name].sel(k=5, tau=slice(1, 5)).diff("tau") >= 0).all()
    assert (found["share"].sel(tau=1) == 0).all()
    assert found["share"].sel(k=5, tau=6).isnull().all() and found["share"].sel(k=3, tau=4).isnull().all()


def test_uninterpretable_is_deterministic(captions, activations, monkeypatch):
    """The same seed gives identical results, whatever the numbers of the clusters."""
    first, again = (run(captions, activations, clusters=(3, 6), seed=4) for _ in range(2))
    assert first.identical(again)
    from sklearn.cluster import KMeans

    real = KMeans.fit_predict
    monkeypatch.setattr(KMeans, "fit_predict", lambda self, *a, **o: (real(self, *a, **o) + 1) % self.n_clusters)
    assert first.identical(run(captions, activations, clusters=(3, 6), seed=4))


def test_uninterpretable_ignores_clip_order(captions, activations):
    """Without ties, the share does not depend on the order of the clips."""
    rows = np.random.default_rng(1).permutation(CLIPS)
    one, two = (run(captions, data, draws=3) for data in (activations, activations.isel(clip=rows)))
    xr.testing.assert_equal(one["share"], two["share"])


def test_uninterpretable_skips_uncaptioned_clips(captions, activations):
    """A clip without a caption is left out and named; the next strongest clips count, and no neuron is lost."""
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


def test_uninterpretable_reads_every_sentence(activations, captions):
    """Captions whose second sentence names the kind of clip make all planted neurons interpretable."""
    own = pd.Series([f"Clip {'xyz'[i % 3]}. {text}" for i, text in enumerate(captions)], captions.index)
    found = run(own, activations, clusters=9)
    assert (found["share"].sel(layer=1) == 0).all() and found.attrs["sentences"] == 9


def test_uninterpretable_excludes_constant_neurons(captions, activations):
    """Constant neurons count in no share, and the share of a layer that has no others is NaN."""
    dead = activations.copy()
    dead[:, 0, :25] = 1.0
    found = run(captions, dead)
    assert (found["share"].sel(layer=1) == 0).all() and int(found["support"].isnull().sum()) == 25
    dead[:, 1] = 0.0
    assert run(captions, dead)["share"].sel(layer=2).isnull().all()


def test_uninterpretable_breaks_ties_randomly():
    """Of neurons that tie on half of the clips, most do not get the ten clips of one kind that stand first."""
    captions = pd.Series(["kind a"] * 10 + ["kind b", "kind c", "kind d", "kind e", "kind f"] * 10)
    values = xr.DataArray(np.zeros((60, 1, 40)), {"clip": np.arange(60), "layer": [0]}, ("clip", "layer", "neuron"))
    values[:30] = 1.0
    shares = [float(run(captions, values, tau=5, draws=2, seed=seed)["share"].squeeze()) for seed in range(8)]
    assert np.mean(shares) > 0.5


def test_uninterpretable_accepts_several_parts(captions, activations):
    """With several parts, shares are those of each part and layer, and NaN for a layer that a part lacks."""
    index = pd.MultiIndex.from_tuples(
        [("a", 1, n) for n in range(NEURONS)] + [("b", 2, n) for n in range(NEURONS)], names=["part", "layer", "neuron"]
    )
    coords = xr.Coordinates.from_pandas_multiindex(index, "unit").assign(clip=captions.index.to_numpy())
    found = run(captions, xr.DataArray(activations.values.reshape(CLIPS, -1), coords, ("clip", "unit")))
    whole = run(captions, activations)
    xr.testing.assert_equal(found["share"].sel(part="a", layer=1, drop=True), whole["share"].sel(layer=1, drop=True))
    assert found["share"].sel(part="a", layer=2).isnull().all()
    assert (found["support"].sel(part="a", layer=1).values == 5).all()


def test_uninterpretable_refuses_too_few_captions(captions, activations):
    """Fewer distinct sentences than clusters, or fewer captioned clips than k, raise a ValueError."""
    with pytest.raises(ValueError, match="6 distinct sentences are too few for 11 clusters"):
        run(captions, activations, clusters=11)
    with pytest.raises(ValueError, match="3 clips have a caption, and k is 5"), pytest.warns(UserWarning):
        run(captions[:3], activations)


def test_uninterpretable_result_can_be_saved(captions, activations, tmp_path):
    """A result is the same after it is saved as netCDF and loaded."""
    found = run(captions, activations)
    found.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "x.nc", engine="h5netcdf"), found)


def test_plots_uninterpretable_draws_curve_per_tau(captions, activations):
    """Each number of clusters has a panel with a curve and a band for each tau, and several k are refused."""
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
