"""The AST family: the waveform goes in raw, parts are where they should be, patches know when they are."""

import numpy as np
import pandas as pd
import pytest
import torch

from xai_lib import attribution, edits, execution, hooks, models
from xai_lib.hooks import Site

pytestmark = pytest.mark.heavy


def sound(n, seed=0):
    return 0.2 * np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def test_prefix_and_suffix_equal_plain_forward(ast):
    """The hidden states of `prefix` equal those of transformers, and `suffix` completes each to the plain logits."""
    x = ast.tensor(sound(16000))
    plain = ast.logits(x)
    kept = ast.network(ast.prepare(x), output_hidden_states=True).hidden_states
    for layer in range(4):
        state = execution.prefix(ast, x, layer)
        torch.testing.assert_close(state.hidden, kept[layer])
        torch.testing.assert_close(execution.suffix(ast, state), plain)


@pytest.mark.parametrize("part", ["attention", "ffn_hidden", "ffn_out"])
def test_capture_equals_linear_maps(ast, part):
    """A captured part is the output of its linear map, after GELU for `ffn_hidden`, and has `n_neurons`."""
    site, linear = Site(2, part), ast.architecture.linear(Site(2, part))
    given = {}
    handle = linear.register_forward_hook(lambda module, args, output: given.update(x=output))
    try:
        with hooks.capture(ast, [site, Site(1), Site(2)]) as seen:
            ast.logits(ast.tensor(sound(16000)))
    finally:
        handle.remove()
    expected = torch.nn.functional.gelu(given["x"]) if part == "ffn_hidden" else given["x"]
    torch.testing.assert_close(seen[site], expected)
    assert seen[site].shape[-1] == ast.n_neurons(site)


def test_capture_of_parts_sums_to_stream(ast):
    """The output of a block is its input plus the outputs of attention and feed-forward layer."""
    sites = [Site(1), Site(2), Site(2, "attention"), Site(2, "ffn_out")]
    with hooks.capture(ast, sites) as seen:
        ast.logits(ast.tensor(sound(16000)))
    below, after, *added = (seen[site] for site in sites)
    torch.testing.assert_close(after, below + sum(added))


@pytest.mark.parametrize("site", [Site(0), Site(1, "attention"), Site(2, "ffn_hidden"), Site(3)])
def test_cascade_equals_hooked_forward(ast, site):
    """The logits of an edit in a cascade equal those of a forward pass under `hooks.edit`, at every kind of site."""
    wave, change = sound(16000), edits.edit([1, 5], "zero")
    both = execution.cascade(ast, wave, [(site, change), {site: edits.edit([0], "flip"), Site(3): change}])
    with torch.no_grad(), hooks.edit(ast, {site: change}):
        torch.testing.assert_close(both[1:2], ast.logits(ast.tensor(wave)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[0], both[1]) and not torch.allclose(both[0], both[2])


def test_times_and_valid_frames_locate_patches(ast):
    """A click changes only the patches near it by `times`; `valid_frames` are those that lie in the clip."""
    at, heard = ast.times(sound(16000)), ast.valid_frames(sound(16000))
    bands, columns = ast.architecture.grid
    assert (
        len(at)
        == len(heard)
        == 2 + bands * columns
        == execution.prefix(ast, ast.tensor(sound(16000)), 0).hidden.shape[1]
    )
    assert np.isnan(at[:2]).all() and not heard[:2].any() and heard[2:].all()
    # A click in otherwise even noise changes the patches about it, whichever their band.
    wave = sound(16000)
    clicked = wave.copy()
    clicked[8000:8010] += 5
    one, other = (execution.prefix(ast, ast.tensor(x), 0).hidden[0, 2:] for x in (wave, clicked))
    moved = (one - other).abs().sum(-1).cpu().numpy()
    near = np.abs(at[2:] - 8005 / 16000) < 0.08
    assert moved[near].mean() > 0 and not moved[~near].any() and moved.reshape(bands, columns)[0].any()
    short = ast.valid_frames(sound(8000))
    assert 0 < short.sum() < heard.sum() and np.nanmax(at[short]) <= 0.5
    assert ast.valid_frames(sound(400)).sum() == bands


def test_speech_finds_the_sound(ast):
    """In a clip that is silent for its first half, `speech` marks only patches later than 0.4 s."""
    wave = np.zeros(16000, np.float32)
    wave[8000:] = sound(8000)
    found = ast.speech(wave)
    assert found.any() and ast.times(wave)[found].min() > 0.4


def test_frame_seconds_are_refused(ast):
    """An AST refuses `frame_seconds`, since its frames are patches of time and frequency."""
    with pytest.raises(ValueError, match="patches of time and frequency"):
        _ = ast.frame_seconds


def test_grad_x_activation_equals_autograd(ast, tmp_path):
    """At the last layer gradient × activation equals autograd through the head, which reads the class tokens alone."""
    import soundfile

    soundfile.write(tmp_path / "a.wav", sound(16000), 16000)
    clips = pd.DataFrame({"path": [str(tmp_path / "a.wav")], "label": ["rain"]})
    scores = attribution.grad_x_activation(ast, clips, target="rain", layers=3)
    x = ast.tensor(sound(16000))
    hidden = execution.prefix(ast, x, 3).hidden.detach().requires_grad_()
    logit = ast.classify(ast.architecture.finish(execution.State(3, hidden)))[0, 0]
    (slope,) = torch.autograd.grad(logit, hidden)
    np.testing.assert_allclose(scores["signed"][0, 0], (slope * hidden)[0].sum(0).detach().cpu(), atol=1e-3)
    assert not slope[0, 2:].any() and slope[0, :2].any()  # the head reads the class tokens alone


def test_load_opens_pocket_ast():
    """The bundled AST opens with its labels, its training folds and a trained head."""
    bundled = models.load("pocket-ast", device="cpu")
    assert bundled.name == "pocket-ast" and bundled.labels[0] == "dog bark" and "esc10-fold-1" in bundled.train_speakers
    bundled.require_trained()
