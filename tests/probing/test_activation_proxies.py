from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xai_lib import audio, edits, hooks
from xai_lib.probing import activation_proxies

T = torch.arange(100, dtype=torch.float64) * 0.02  # two seconds of frames
U = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)


@pytest.fixture
def clips(coloured_clips):
    return coloured_clips


def test_rms_is_the_mean_norm():
    """The RMS proxy is the norm over neurons averaged over frames, of one clip or of a batch."""
    hidden = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-5.0, 12.0]])
    assert activation_proxies.rms(hidden) == pytest.approx(6)
    assert activation_proxies.rms(torch.stack([hidden, 2 * hidden])).tolist() == pytest.approx([6, 12])


@pytest.mark.parametrize("hertz", [1.0, 3.0, 7.5])
def test_zcr_counts_crossings_of_sinusoid(hertz):
    """The ZCR proxy counts a sinusoid's crossings of the centre per second, whatever the component's sign."""
    score = torch.sin(2 * torch.pi * hertz * T + 0.3)
    hidden = score[:, None] * U + 5  # far from the origin: only the centre brings the crossings back
    expected = (score.sign().diff() != 0).double().mean() / 0.02
    assert expected == pytest.approx(2 * hertz, abs=0.6)
    assert activation_proxies.zcr(hidden, U, torch.full((3,), 5.0)) == pytest.approx(expected)
    assert activation_proxies.zcr(hidden, -U, torch.full((3,), 5.0)) == pytest.approx(
        expected
    )  # a component has no sign
    assert activation_proxies.zcr(hidden, U, torch.full((3,), -50.0)) == 0


def test_centroid_equals_mean_of_tones():
    """The centroid proxy is the mean frequency of tones weighted by amplitude, and NaN for a constant norm."""

    def course(*tones):
        norm = 9 + sum(size * torch.sin(2 * torch.pi * hertz * T) for hertz, size in tones)
        return norm[:, None] * U

    assert activation_proxies.centroid(course((4, 1.0))) == pytest.approx(4)
    assert activation_proxies.centroid(course((4, 3.0), (10, 1.0))) == pytest.approx((3 * 4 + 10) / 4)
    assert torch.isnan(activation_proxies.centroid(course((4, 0.0))))
    assert torch.isnan(activation_proxies.centroid(torch.zeros(20, 3)))


@given(seed=st.integers(0, 99), neurons=st.sets(st.integers(0, 4), min_size=1))
def test_activation_proxies_ignore_flips_at_site(seed, neurons):
    """At the edited site no proxy sees a flip (`zcr`: of all neurons), while zeroing lowers `rms`."""
    hidden = torch.randn(1, 30, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for frames in ("all", "max_frame", [3, 9]):
        flipped = edits.edit(sorted(neurons), "flip", frames=frames)(hidden)
        assert not torch.equal(flipped, hidden)
        assert torch.equal(activation_proxies.rms(flipped), activation_proxies.rms(hidden))
        assert torch.equal(activation_proxies.centroid(flipped), activation_proxies.centroid(hidden))
    axis, centre = torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    assert torch.equal(activation_proxies.zcr(-hidden, axis, centre), activation_proxies.zcr(hidden, axis, centre))
    zero_ablation = edits.edit(sorted(neurons), "zero")(hidden)
    assert activation_proxies.rms(zero_ablation) < activation_proxies.rms(hidden)  # while zeroing is seen


def test_fit_recovers_planted_component(tiny, clips):
    """A planted component and its share of variance are found; `sd` is that of the proxies between clips."""
    model = tiny()
    width = model.n_neurons(0)
    axis = torch.nn.functional.normalize(torch.arange(width, dtype=torch.float32), dim=0)

    def plant(hidden):
        course = torch.sin(2 * torch.pi * 5 * 0.02 * torch.arange(hidden.shape[1]) + 0.1)
        noise = torch.randn(len(course), width, generator=torch.Generator().manual_seed(0))
        return (2 + 3 * course[:, None] * axis + 0.01 * noise).to(hidden)[None]

    with hooks.edit(model, {hooks.Site(2): plant}):
        fitted = activation_proxies.fit(model, clips)
        found = activation_proxies.measure(model, clips, fitted)
    at = fitted.sel(layer=2)
    assert abs(at["component"].values @ axis.numpy()) > 0.999 and at["explained"] > 0.95
    assert found["value"].sel(layer=2, proxy="zcr").values == pytest.approx(10, abs=3)  # 5 Hz, in a third of a second
    assert fitted["sd"].values == pytest.approx(found["value"].values.std(0, ddof=1), rel=1e-5)


def test_measure_equals_capture_and_audio_features(tiny, clips):
    """Measured are `rms` of the captured layer, and the true RMS and centroid of the waveform."""
    model = tiny()
    fitted = activation_proxies.fit(model, clips.iloc[:3])
    found = activation_proxies.measure(model, clips.iloc[3:], fitted)
    assert found["value"].dims == ("clip", "layer", "proxy") and found["clip"].values.tolist() == [3, 4, 5]
    waveform = audio.read(clips["path"][4])
    with torch.no_grad(), hooks.capture(model, 2) as kept:
        model.logits(model.tensor(waveform))
    assert found["value"].sel(clip=4, layer=2, proxy="rms") == pytest.approx(
        kept[hooks.Site(2)][0].norm(dim=1).mean().item(), rel=1e-5
    )
    true = audio.features(audio.without_offset(torch.as_tensor(waveform)), names=("rms", "centroid"))
    for name, values in true.items():
        assert found["true"].sel(clip=4, proxy=name) == pytest.approx(values.mean().item(), rel=1e-5)


def test_readout_functions_refuse_other_models(tiny, clips):
    """Proxies that were fitted on another model are refused."""
    fitted = activation_proxies.fit(tiny(), clips.iloc[:2])
    with pytest.raises(ValueError, match="fitted on another model"):
        activation_proxies.readout_functions(tiny(num_hidden_layers=2), fitted)


def test_fit_names_bad_clips(tiny, clips):
    """A clip that cannot be read is listed as skipped, with a warning."""
    clips.loc[1, "path"] = "nowhere.wav"
    with pytest.warns(UserWarning, match="nowhere"):
        fitted = activation_proxies.fit(tiny(), clips)
    assert '"1"' in fitted.attrs["skipped"]
