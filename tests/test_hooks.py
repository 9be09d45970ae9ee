from __future__ import annotations

import numpy as np
import pytest
import torch

from xai_lib import hooks
from xai_lib.families import PARTS, Site


@pytest.fixture(params=["base", "large"])
def model(request, tiny):
    return tiny(request.param)


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())


def test_a_site_is_what_its_name_says(model, wave):
    """The parts, put together by hand, make the block."""
    with torch.no_grad(), hooks.capture(model, model.sites(PARTS)) as seen:
        model.logits(model.tensor(wave))
    for layer in range(1, model.n_layers + 1):
        block = model.family.layers[layer - 1]
        before = seen[Site(layer - 1)]
        attended = before + seen[Site(layer, "attention")]
        if model.family.stable:
            made = attended + seen[Site(layer, "ffn_out")]
        else:
            made = block.final_layer_norm(block.layer_norm(attended) + seen[Site(layer, "ffn_out")])
        assert torch.allclose(made, seen[Site(layer)], atol=1e-5)
        inside = seen[Site(layer, "ffn_hidden")]
        assert torch.allclose(block.feed_forward.output_dense(inside), seen[Site(layer, "ffn_out")], atol=1e-6)
        for part in PARTS:
            assert seen[Site(layer, part)].shape[-1] == model.n_neurons((layer, part))


def test_capture_sees_edits_whichever_came_first(model, wave):
    x, site = model.tensor(wave), Site(2)
    with hooks.capture(model, site) as seen, hooks.edit(model, {site: torch.zeros_like}):
        model.logits(x)
    assert (seen[site] == 0).all()
    with hooks.edit(model, {site: torch.zeros_like}), hooks.capture(model, site) as seen:
        model.logits(x)
    assert (seen[site] == 0).all()


def test_hugging_face_hidden_states_see_the_edit(model, wave):
    x = model.prepare(model.tensor(wave))
    model.network(x, output_hidden_states=True)  # installs the library's own hooks, before ours
    for layer in range(model.n_layers + 1):
        with hooks.edit(model, {Site(layer): torch.ones_like}):
            states = model.network(x, output_hidden_states=True).hidden_states
        assert (states[layer] == 1).all()


def test_captured_tensors_carry_gradients(model, wave):
    x = model.tensor(wave).requires_grad_()
    with hooks.capture(model, model.sites(PARTS)) as seen:
        logit = model.logits(x)[0, 0]
    for gradient in torch.autograd.grad(logit, [*seen.values()]):
        assert gradient.abs().sum() > 0


def test_flip_twice_is_the_identity(model, wave):
    x = model.tensor(wave)
    with hooks.edit(model, {Site(1): torch.neg}), hooks.edit(model, {Site(1): torch.neg}):
        twice = model.logits(x)
    assert torch.equal(twice, model.logits(x))


def test_the_inner_edit_of_a_site_acts_first(model, wave):
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


@pytest.mark.parametrize("wrong", [lambda h: h[:, :-1], lambda h: None, lambda h: h.numpy()])
def test_an_edit_must_keep_the_shape(model, wave, wrong):
    with pytest.raises(ValueError, match="attention of layer 2 must return"):
        with hooks.edit(model, {Site(2, "attention"): wrong}):
            model.logits(model.tensor(wave).cpu() if wrong(torch.zeros(1, 2, 2)) is None else model.tensor(wave))


def test_an_edit_may_write_in_place(model, wave):
    def zero(hidden):
        hidden[:] = 0
        return hidden

    x = model.tensor(wave)
    with hooks.edit(model, {Site(1, "attention"): zero}):
        written = model.logits(x)
    with hooks.edit(model, {Site(1, "attention"): torch.zeros_like}):
        assert torch.equal(model.logits(x), written)
    assert np.abs((written - model.logits(x)).cpu().numpy()).max() > 1e-4
