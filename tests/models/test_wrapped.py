"""Any module, opened by the paths of its submodules, whichever way round its outputs are."""

import numpy as np
import pytest
import torch
from torch import nn

from xai_lib import activations, edits, execution, hooks, models
from xai_lib.hooks import Site


class Frames(nn.Module):
    """Windows of 100 samples, two feed-forward layers, a head on their mean; frames first where `first`."""

    def __init__(self, first=False, tuples=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(100, 8)
        self.layers = nn.ModuleList(nn.ModuleDict({"fc1": nn.Linear(8, 12), "fc2": nn.Linear(12, 8)}) for _ in range(2))
        self.head = nn.Linear(8, 3)
        self.first, self.tuples = first, tuples

    def forward(self, x):
        hidden = self.embed(x.unfold(-1, 100, 100))
        hidden = hidden.transpose(0, 1) if self.first else hidden
        for layer in self.layers:
            hidden = hidden + layer["fc2"](torch.relu(layer["fc1"](hidden)))
        logits = self.head(hidden.mean(0 if self.first else 1))
        return (logits, hidden) if self.tuples else logits


SITES = {"ffn_hidden": "layers.{}.fc1", "ffn_out": "layers.{}.fc2", (0, "hidden_state"): "embed"}


def wrapped(first=False, **options):
    layout = dict.fromkeys(["ffn_hidden", "ffn_out"], f"{'frame batch' if first else 'batch frame'} neuron")
    layout["head"] = "batch neuron"
    return models.wrap(
        Frames(first), sites=SITES, sample_rate=8000, labels="abc", layout=layout, device="cpu", **options
    )


@pytest.fixture
def wave():
    return np.random.default_rng(0).standard_normal(4000).astype(np.float32)


def test_wrap_hides_the_layout(wave):
    """A module gives the same activations and logits at every site, whether frames or batch come first."""
    plain, other = wrapped(), wrapped(first=True)
    assert plain.n_layers == 2 and plain.sites(["ffn_hidden", "ffn_out"]) == [
        Site(layer, part) for layer in (1, 2) for part in ("ffn_hidden", "ffn_out")
    ]
    sites = [*plain.sites("ffn_hidden"), Site(0), Site(2, "ffn_out"), "layers.1.fc1", "head"]
    kept = []
    for model in (plain, other):
        with hooks.capture(model, sites) as seen:
            kept.append((model.logits(model.tensor(wave)), dict(seen)))
    torch.testing.assert_close(kept[0], kept[1])
    assert kept[1][1][Site(1, "ffn_hidden")].shape == (1, 40, 12)
    torch.testing.assert_close(kept[0][1][Site(2, "ffn_hidden")], kept[1][1][Site("layers.1.fc1", "module")])


@pytest.mark.parametrize("first", [False, True])
def test_cascade_read_equals_edited_weights(wave, first):
    """Zeroing neurons of a wrapped module in a cascade equals zeroing their weights, and leaves no hook behind."""
    model, change = wrapped(first), edits.edit([0, 3], "zero")
    plans = [
        (Site(1, "ffn_hidden"), change),
        {Site(2, "ffn_out"): edits.edit([1], "flip"), Site(0): change},
        ("head", edits.edit([0, 2], "zero")),
    ]
    found, seen = execution.cascade_read(
        model, wave, plans, {Site(2, "ffn_out"): lambda hidden: hidden.mean(1)}, batch=2
    )
    network = Frames(first)
    with torch.no_grad():
        network.layers[0]["fc1"].weight[[0, 3]] = 0
        network.layers[0]["fc1"].bias[[0, 3]] = 0
        expected = network(torch.from_numpy(wave)[None])
    torch.testing.assert_close(found[1:2], expected)
    assert found.shape == (4, 3) and seen[Site(2, "ffn_out")].shape == (4, 8)
    assert found[3, [0]].item() == 0 and not torch.allclose(found[0], found[2])
    assert not any(m._forward_hooks for m in model.network.modules())


def test_wrap_flattens_two_frame_axes():
    """The two frame axes of a 2D convolution are flattened into one on capture, and restored on edits."""
    network = nn.Sequential(nn.Unflatten(1, (1, 20, -1)), nn.Conv2d(1, 6, 3), nn.Flatten(), nn.Linear(6 * 18 * 18, 2))
    layout = {"conv": "batch neuron frame frame"}
    model = models.wrap(network, sites={(1, "conv"): "1"}, sample_rate=400, labels="ab", layout=layout, device="cpu")
    x = torch.randn(1, 400)
    with hooks.capture(model, Site(1, "conv")) as seen:
        model.logits(x)
    torch.testing.assert_close(seen[Site(1, "conv")], network[1](network[0](x)).flatten(2).transpose(1, 2))
    with hooks.edit(model, {Site(1, "conv"): lambda hidden: hidden}):
        torch.testing.assert_close(model.logits(x), network(x))


def test_wrap_refuses_what_does_not_fit():
    """Layouts, labels, paths, sites and calls that do not fit a wrapped module are refused, with the reason."""
    good = {"sites": SITES, "sample_rate": 8000, "labels": "abc", "device": "cpu"}
    with pytest.raises(ValueError, match="10 rows for two clips|80 rows for two clips"):
        models.wrap(Frames(first=True), **good)
    with pytest.raises(ValueError, match="there are 4 labels"):
        models.wrap(Frames(), **{**good, "labels": "abcd"})
    with pytest.raises(ValueError, match="no module is called layer"):
        models.wrap(Frames(), **{**good, "sites": {"ffn_hidden": "layer.{}.fc1"}})
    with pytest.raises(ValueError, match="no module nothing"):
        models.wrap(Frames(), **{**good, "sites": {(1, "hidden_state"): "nothing"}})
    with pytest.raises(ValueError, match="layout"):
        models.wrap(Frames(), layout="frame neuron", **good)
    model = models.wrap(Frames(), **good)
    with pytest.raises(ValueError, match="unknown part 'attention'"):
        model.check((1, "attention"))
    with pytest.raises(ValueError, match="layer 2 has no hidden_state"):
        model.check(2)
    with pytest.raises(ValueError, match="neuron 12 out of range"):
        model.check((1, "ffn_hidden"), 12)
    with pytest.raises(ValueError, match="layers.0.fc1"):
        model.check("layers.0.fc")
    with pytest.raises(ValueError, match="cannot be stopped after a layer"):
        execution.prefix(model, torch.zeros(1, 4000), 0)
    with pytest.raises(ValueError, match="number of frames of a wrapped module is unknown"):
        model.n_frames(4000)


def test_wrap_takes_tuples_preprocess_and_read(wave):
    """A wrapped module may return a tuple, be preprocessed, be read by a function, and have no labels."""
    model = models.wrap(Frames(tuples=True), sites=SITES, sample_rate=8000, labels="abc", device="cpu",
                        preprocess=lambda x: x / 2)  # fmt: skip
    torch.testing.assert_close(model.logits(model.tensor(wave)), Frames()(model.tensor(wave) / 2))
    hidden = models.wrap(Frames(tuples=True), sites=SITES, sample_rate=8000, labels="abcdefgh", device="cpu",
                         read=lambda output: output[1].mean(1))  # fmt: skip
    assert hidden.logits(hidden.tensor(wave)).shape == (1, 8)
    bare = models.wrap(Frames(), sites=SITES, sample_rate=8000, device="cpu")
    assert bare.logits(bare.tensor(wave)).shape == (1, 0)


def test_site_can_be_a_module_path(tiny):
    """The path of a module is a site of a loaded model too: it is captured, counted and edited like the named part."""
    model = tiny()
    x = model.tensor(np.random.default_rng(0).standard_normal(8000))
    path = "wavlm.encoder.layers.1.feed_forward.intermediate_dense"
    with hooks.capture(model, [path, Site(2, "ffn_hidden"), "classifier"]) as seen:
        logits = model.logits(x)
    torch.testing.assert_close(torch.nn.functional.gelu(seen[Site(path, "module")]), seen[Site(2, "ffn_hidden")])
    torch.testing.assert_close(seen[Site("classifier", "module")][:, 0], logits)
    assert model.n_neurons(path) == 40
    change = edits.edit([1, 2], "zero")
    both = execution.cascade(model, x[0].cpu(), [(path, change), (Site(2, "ffn_hidden"), change)])
    torch.testing.assert_close(both[1], both[2])


def test_grad_x_activation_equals_autograd(tmp_path):
    """Gradient × activation of a wrapped module equals autograd, whatever the layout."""
    import pandas as pd
    import soundfile

    from xai_lib import attribution

    wave = 0.1 * np.random.default_rng(0).standard_normal(4000)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype="FLOAT")
    clips = pd.DataFrame({"path": [str(tmp_path / "a.wav")], "label": ["a"]})
    plain, other = (
        attribution.grad_x_activation(wrapped(first), clips, target="a", part="ffn_hidden") for first in (False, True)
    )
    np.testing.assert_allclose(plain["signed"], other["signed"], atol=1e-6)
    network = Frames()
    kept = []
    network.layers[1]["fc1"].register_forward_hook(lambda module, args, output: kept.append(output))
    logits = network(torch.from_numpy(wave.astype(np.float32))[None])
    (slope,) = torch.autograd.grad(logits[0, 0], kept)
    np.testing.assert_allclose(plain["signed"].sel(layer=2)[0], (slope * kept[0])[0].sum(0).detach(), atol=1e-6)


def test_wrap_survives_pickling(wave):
    """A wrapped module gives the same logits after pickling."""
    import pickle

    model = wrapped()
    again = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(again.logits(again.tensor(wave)), model.logits(model.tensor(wave)))


class Window(nn.Module):
    """Pads and cuts clips to ten seconds: frames of 10 ms, or patches of 10 ms by four bands, whichever axis is first."""

    def __init__(self, axes=None, exact=False):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.last, self.head = nn.Linear(80, 16), nn.Identity(), nn.Linear(16, 3)
        self.axes, self.exact = axes, exact

    def forward(self, x):
        if self.exact and x.shape[1] != 80_000:
            raise RuntimeError("ten seconds, please")
        hidden = nn.functional.pad(x[:, :80_000], (0, max(80_000 - x.shape[1], 0))).unfold(-1, 80, 80)
        if self.axes is None:
            return self.head(self.fc(hidden).relu().mean(1))
        hidden = self.last(self.fc(hidden).unflatten(-1, (4, 4)).permute([0, 2, *self.axes]))
        return self.head(hidden.flatten(2).mean(2).repeat(1, 4))


def windowed(axes=None, **options):
    """`Window`, and a wave of a second and a half: a tone from 0.5 to 1 s."""
    module = Window(axes, exact=options.pop("exact", False))
    site = {(1, "ffn_hidden"): "fc"} if axes is None else {(1, "map"): "last"}
    model = models.wrap(module, sites=site, sample_rate=8000, labels="abc", device="cpu", **options)
    wave = np.zeros(12_000, np.float32)
    wave[4000:8000] = np.sin(np.arange(4000) * 0.3)
    return model, wave


def test_valid_frames_of_window_lie_in_clip():
    """Of a fixed window of `seconds` only frames in the clip are valid; without `seconds`, `wrap` warns."""
    with pytest.warns(UserWarning, match="1 s and of 2 s both give 1000 frames.* seconds="):
        model, wave = windowed()
    assert model.valid_frames(wave, 1000).all() and model.times(wave, 1000)[-1] < 1.5  # as nobody said otherwise
    model, wave = windowed(seconds=10)
    assert np.flatnonzero(model.valid_frames(wave, 1000)).tolist() == list(range(150))
    np.testing.assert_allclose(model.times(wave, 1000), 0.005 + 0.01 * np.arange(1000))
    spoken = np.flatnonzero(model.speech(wave, 1000))
    assert 47 <= spoken[0] <= 50 and 99 <= spoken[-1] <= 103
    assert model.valid_frames(np.zeros(90_000), 1000).all()  # of a longer clip, what is left of it
    assert model.valid_frames(np.zeros(20), 1000).sum() == 1
    with hooks.capture(model, Site(1, "ffn_hidden")) as seen:
        model.logits(model.tensor(wave))
    assert activations.frame_selector(model, wave, "all")(1000).sum() == 150
    assert seen[Site(1, "ffn_hidden")][0, 150:].std(0).max() == 0  # padding, the same in each


@pytest.mark.parametrize("axes", [(3, 1), (1, 3)])
def test_valid_frames_follow_the_time_axis(axes):
    """Of two frame axes `time` says which frames lie in the clip; a window without that word is refused."""
    words = "batch neuron frame time" if axes == (3, 1) else "batch neuron time frame"
    model, wave = windowed(axes, layout={"map": words}, seconds=10)
    with hooks.capture(model, Site(1, "map")) as seen, hooks.edit(model, {Site(1, "map"): lambda hidden: hidden}):
        logits = model.logits(model.tensor(wave))
    torch.testing.assert_close(logits, model.logits(model.tensor(wave)))
    hidden, heard = seen[Site(1, "map")][0], model.valid_frames(wave, 4000)
    bands = hidden.unflatten(0, (4, 1000))
    torch.testing.assert_close(bands[:, 150:], bands[:, -1:].expand(4, 850, -1))  # padding, alike in each band
    assert heard.reshape(4, 1000)[:, :150].all() and heard.sum() == 600
    assert model.times(wave, 4000)[[149, 1149]].tolist() == pytest.approx([1.495, 1.495])
    with pytest.raises(ValueError, match="which of its frame axes is time"):
        windowed(axes, layout={"map": "batch neuron frame frame"}, seconds=10)


def test_wrap_checks_seconds():
    """Wrapping asks for `seconds` if a module takes one length only, and refuses them if frames grow with the clip."""
    with pytest.raises(ValueError, match="does not take 1 s of sound .ten seconds, please.* seconds="):
        windowed(exact=True)
    model, _ = windowed(exact=True, seconds=10)
    assert model.n_neurons("fc") == 16
    with pytest.raises(ValueError, match="number of frames grows with the clip"):
        wrapped(seconds=2)


def test_wrap_refuses_frames_as_neurons():
    """Wrapping refuses a layout by which the number of neurons grows with the clip, and takes the right one."""
    network = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 6, 10, stride=5))
    options = {"sites": {(1, "conv"): "1"}, "sample_rate": 400, "device": "cpu"}
    with pytest.raises(ValueError, match="79 neurons in one clip and 159 in a longer one"):
        models.wrap(network, **options)
    assert models.wrap(network, layout="batch neuron frame", **options).n_neurons((1, "conv")) == 6
