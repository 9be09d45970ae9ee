from __future__ import annotations

import copy
import weakref

import numpy as np
import pytest
import torch

from xai_lib import edits, execution, hooks
from xai_lib.models.sites import PARTS, Site


@pytest.fixture(params=["base", "large"])
def model(request, shared):
    return shared(request.param)


def hook_count(model):
    model.logits(torch.zeros(1, 800))  # the library installs hooks of its own
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())


def test_site_parts_compose_the_block(model, wave):
    """The captured parts of a layer, put together by hand, make the output of its block."""
    with torch.no_grad(), hooks.capture(model, model.sites(PARTS)) as seen:
        model.logits(model.tensor(wave))
    for layer in range(1, model.n_layers + 1):
        block = model.architecture.layers[layer - 1]
        before = seen[Site(layer - 1)]
        attended = before + seen[Site(layer, "attention")]
        if model.architecture.stable:
            made = attended + seen[Site(layer, "ffn_out")]
        else:
            made = block.final_layer_norm(block.layer_norm(attended) + seen[Site(layer, "ffn_out")])
        assert torch.allclose(made, seen[Site(layer)], atol=1e-5)
        inside = seen[Site(layer, "ffn_hidden")]
        assert torch.allclose(block.feed_forward.output_dense(inside), seen[Site(layer, "ffn_out")], atol=1e-6)
        for part in PARTS:
            assert seen[Site(layer, part)].shape[-1] == model.n_neurons((layer, part))


def test_capture_sees_edits_in_any_order(model, wave):
    """A capture sees the edit of its site, whether it was entered before the edit or after it."""
    x, site = model.tensor(wave), Site(2)
    with hooks.capture(model, site) as seen, hooks.edit(model, {site: torch.zeros_like}):
        model.logits(x)
    assert (seen[site] == 0).all()
    with hooks.edit(model, {site: torch.zeros_like}), hooks.capture(model, site) as seen:
        model.logits(x)
    assert (seen[site] == 0).all()


def test_edit_reaches_hugging_face_hidden_states(model, wave):
    """The hidden states that transformers returns contain the edit, at every layer."""
    x = model.prepare(model.tensor(wave))
    model.network(x, output_hidden_states=True)  # installs the library's own hooks, before ours
    for layer in range(model.n_layers + 1):
        with hooks.edit(model, {Site(layer): torch.ones_like}):
            states = model.network(x, output_hidden_states=True).hidden_states
        assert (states[layer] == 1).all()


def test_capture_reduces_and_releases_each_site(model, wave):
    """A capture reduces each site as soon as it is computed, and keeps no whole tensor."""
    sites, waveform, held, most = model.sites("ffn_hidden"), model.tensor(wave), [], []

    def mean_over_frames(hidden):
        most.append(sum(reference() is not None for reference in held))
        held.append(weakref.ref(hidden))
        return hidden.mean(dim=1)

    with torch.no_grad(), hooks.capture(model, sites, mean_over_frames) as reduced:
        model.logits(waveform)
    with torch.no_grad(), hooks.capture(model, sites) as whole:
        model.logits(waveform)
    assert list(reduced) == list(whole) == sites and max(most) == 0
    for site in sites:
        torch.testing.assert_close(reduced[site], whole[site].mean(dim=1))


def test_capture_carries_gradients(model, wave):
    """Gradients of a logit reach the captured tensors of every site."""
    x = model.tensor(wave).requires_grad_()
    with hooks.capture(model, model.sites(PARTS)) as seen:
        logit = model.logits(x)[0, 0]
    for gradient in torch.autograd.grad(logit, [*seen.values()]):
        assert gradient.abs().sum() > 0


def test_edit_negated_twice_is_identity(model, wave):
    """Two edits that negate the same site give the logits of no edit."""
    x = model.tensor(wave)
    with hooks.edit(model, {Site(1): torch.neg}), hooks.edit(model, {Site(1): torch.neg}):
        twice = model.logits(x)
    assert torch.equal(twice, model.logits(x))


def test_edit_nested_applies_inner_first(model, wave):
    """Of two nested edits of one site, the inner one acts first."""
    x, site = model.prepare(model.tensor(wave)), Site(2)
    model.network(x, output_hidden_states=True)  # installs the library's own hooks
    one, double = hooks.edit(model, {site: torch.ones_like}), hooks.edit(model, {site: lambda h: 2 * h})
    with double, one, hooks.capture(model, site) as seen:
        model.network(x)
    assert (seen[site] == 2).all()  # outer(inner(hidden))
    one, double = hooks.edit(model, {site: torch.ones_like}), hooks.edit(model, {site: lambda h: 2 * h})
    with one, double, hooks.capture(model, site) as seen:
        model.network(x)
    assert (seen[site] == 1).all()


def test_hooks_are_removed_after_exceptions(model, wave):
    """All hooks are removed when an edit raises an error, and when a layer is out of range."""
    model.logits(model.tensor(wave))  # Hugging Face leaves hooks of its own at the first forward
    before = hook_count(model)

    def broken(hidden):
        raise ArithmeticError("on purpose")

    sites = {site: broken for site in model.sites(PARTS)}
    with pytest.raises(ArithmeticError), hooks.edit(model, sites), hooks.capture(model, list(sites)):
        model.logits(model.tensor(wave))
    assert hook_count(model) == before
    with pytest.raises(ValueError, match="layer 14 out of range: this model has 0–3"):
        with hooks.edit(model, {Site(1): torch.neg, Site(14): torch.neg}):
            pass
    assert hook_count(model) == before


@pytest.mark.parametrize("wrong", [lambda h: h[:, :-1], lambda h: None, lambda h: h.cpu().numpy()])
def test_edit_refuses_changed_shape_or_type(model, wave, wrong):
    """An edit that returns another shape, nothing or an array is refused with the name of its site."""
    with pytest.raises(ValueError, match="attention of layer 2 must return"):
        with hooks.edit(model, {Site(2, "attention"): wrong}):
            model.logits(model.tensor(wave))


def test_edit_may_write_in_place(model, wave):
    """An edit that writes in place equals one that returns a new tensor, and changes the logits."""

    def zero(hidden):
        hidden[:] = 0
        return hidden

    x = model.tensor(wave)
    with hooks.edit(model, {Site(1, "attention"): zero}):
        written = model.logits(x)
    with hooks.edit(model, {Site(1, "attention"): torch.zeros_like}):
        assert torch.equal(model.logits(x), written)
    assert np.abs((written - model.logits(x)).cpu().numpy()).max() > 1e-4


def test_heads_mix_into_attention(model, wave):
    """The output projection of captured heads is the attention, and capturing changes neither logits nor hooks."""
    x, layers, before = model.tensor(wave), range(1, model.n_layers + 1), hook_count(model)
    with torch.no_grad():
        clean = model.logits(x)
        with hooks.capture(model, model.sites(("heads", "attention"))) as seen:
            assert torch.allclose(model.logits(x), clean, atol=1e-5)
    for layer in layers:
        mixed = model.architecture.layers[layer - 1].attention.out_proj(seen[Site(layer, "heads")])
        assert torch.allclose(mixed, seen[Site(layer, "attention")], atol=1e-5)
    assert torch.equal(model.logits(x), clean) and hook_count(model) == before


def test_heads_edit_equals_weight_edit(model, wave, tiny):
    """Zeroing or flipping a head equals zeroing or negating its columns of the output projection."""
    x, own = model.tensor(wave), model.head_neurons(1)
    assert len(own) == model.n_neurons((2, "heads")) // model.architecture.n_heads
    for mode, factor in (("zero", 0), ("flip", -1)):
        with torch.no_grad():
            with (
                hooks.edit(model, {(2, "heads"): edits.edit(own, mode)}),
                hooks.capture(model, Site(2, "heads")) as seen,
            ):
                edited = model.logits(x)
            change = execution.cascade(model, wave, [((2, "heads"), edits.edit(own, mode))])[1]
            other = copy.deepcopy(model.network.state_dict())
            mix = model.architecture.layers[1].attention.out_proj.weight
            kept = mix.clone()
            mix[:, own] *= factor
            assert torch.allclose(model.logits(x), edited, atol=1e-5)
            assert torch.allclose(change, edited[0], atol=1e-5)
            mix.copy_(kept)
            assert all(torch.equal(other[name], value) for name, value in model.network.state_dict().items())
        assert not torch.allclose(model.logits(x), edited, atol=1e-4)
        assert seen[Site(2, "heads")].shape[-1] == model.n_neurons((2, "heads"))
    with pytest.raises(ValueError, match="head 9 out of range: each layer has 0–"):
        model.head_neurons([0, 9])


def test_heads_are_restored_after_an_error(model, wave):
    """After an error in an edit of heads, the output projection and the hooks are as before."""

    def broken(hidden):
        raise KeyError("stop")

    mix, before = model.architecture.layers[1].attention.out_proj, hook_count(model)
    with pytest.raises(KeyError), hooks.edit(model, {(2, "heads"): broken}):
        model.logits(model.tensor(wave))
    assert model.architecture.layers[1].attention.out_proj is mix and hook_count(model) == before
