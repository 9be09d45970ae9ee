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


def test_prefix_and_suffix_are_the_plain_forward_and_blocks_are_its_hidden_states(ast):
    x = ast.tensor(sound(16000))
    plain = ast.logits(x)
    kept = ast.network(ast.prepare(x), output_hidden_states=True).hidden_states
    for layer in range(4):
        state = execution.prefix(ast, x, layer)
        torch.testing.assert_close(state.hidden, kept[layer])
        torch.testing.assert_close(execution.suffix(ast, state), plain)


@pytest.mark.parametrize("part", ["attention", "ffn_hidden", "ffn_out"])
def test_each_part_is_what_its_linear_map_gives(ast, part):
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


def test_the_stream_is_the_sum_of_what_the_parts_add(ast):
    sites = [Site(1), Site(2), Site(2, "attention"), Site(2, "ffn_out")]
    with hooks.capture(ast, sites) as seen:
        ast.logits(ast.tensor(sound(16000)))
    below, after, *added = (seen[site] for site in sites)
    torch.testing.assert_close(after, below + sum(added))


@pytest.mark.parametrize("site", [Site(0), Site(1, "attention"), Site(2, "ffn_hidden"), Site(3)])
def test_the_cascade_is_the_hooked_forward(ast, site):
    wave, change = sound(16000), edits.edit([1, 5], "zero")
    both = execution.cascade(ast, wave, [(site, change), {site: edits.edit([0], "flip"), Site(3): change}])
    with torch.no_grad(), hooks.edit(ast, {site: change}):
        torch.testing.assert_close(both[1:2], ast.logits(ast.tensor(wave)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[0], both[1]) and not torch.allclose(both[0], both[2])


def test_patches_know_when_they_are_and_which_lie_in_the_clip(ast):
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


def test_speech_is_where_the_sound_is(ast):
    wave = np.zeros(16000, np.float32)
    wave[8000:] = sound(8000)
    found = ast.speech(wave)
    assert found.any() and ast.times(wave)[found].min() > 0.4


def test_a_timeline_is_refused_in_words(ast):
    with pytest.raises(ValueError, match="patches of time and frequency"):
        _ = ast.frame_seconds


def test_gradients_of_every_part_add_up_where_the_head_is_all_that_follows(ast, tmp_path):
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


def test_the_bundled_one_opens_and_knows_what_it_was_trained_on():
    bundled = models.load("pocket-ast", device="cpu")
    assert bundled.name == "pocket-ast" and bundled.labels[0] == "dog bark" and "esc10-fold-1" in bundled.train_speakers
    bundled.require_trained()
