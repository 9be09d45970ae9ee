from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WavLMConfig, WavLMForSequenceClassification

from xai_lib import execution, hooks, models
from xai_lib.models.sites import PARTS, Site


def flip(hidden):
    out = hidden.clone()
    out[..., ::2] *= -1
    return out


def double_last(hidden):
    hidden[:, 2:9, -3:] *= 2  # writes in place: the library must hand out a copy
    return hidden


def hooked(model, wave, edits):
    with torch.no_grad(), hooks.edit(model, edits):
        return model.network(model.prepare(model.tensor(wave))).logits


def close(a, b, tolerance=1e-5):
    assert (a - b).abs().max() <= tolerance * b.abs().max()


def test_prefix_with_suffix_equals_plain_forward(model, wave):
    """At every layer, `prefix` followed by `suffix` gives the logits of the plain forward."""
    x = model.tensor(wave)
    with torch.no_grad():
        plain = model.network(model.prepare(x)).logits
        for layer in range(model.n_layers + 1):
            close(execution.suffix(model, execution.prefix(model, x, layer)), plain)


def test_prefix_equals_hidden_states(model, wave):
    """The prefix up to each layer gives that hidden state of transformers."""
    with torch.no_grad():
        states = model.network(model.prepare(model.tensor(wave)), output_hidden_states=True).hidden_states
        for layer, expected in enumerate(states):
            close(execution.prefix(model, model.tensor(wave), layer).hidden, expected)


def test_prefix_of_batch_equals_single_clips(model, wave):
    """The prefix and suffix of a batch give the logits of its clips one by one."""
    x = torch.stack([torch.from_numpy(wave), torch.from_numpy(wave[::-1].copy())]).to(model.device)
    with torch.no_grad():
        both = execution.suffix(model, execution.prefix(model, x, 1))
        close(both, torch.cat([model.logits(row[None]) for row in x]))


def test_cascade_equals_hooked_forwards(model, wave):
    """A cascade equals one hooked forward for each edit, in any order, and every edit changes the logits."""
    edits = [(site, function) for site in model.sites(PARTS) for function in (flip, double_last)]
    edits = edits[::-1]  # not in the order of the network
    found = execution.cascade(model, wave, edits, batch=7)
    expected = [hooked(model, wave, {})] + [hooked(model, wave, {site: f}) for site, f in edits]
    close(found, torch.cat(expected))
    moved = (found[1:] - found[0]).abs().amax(1)
    assert (moved > 1e-4 * found[0].abs().max()).all()  # every edit reaches the logits


def test_cascade_applies_edits_together(model, wave):
    """A row of a cascade that edits several sites together equals a forward with all of these hooks."""
    together = {Site(1, "ffn_hidden"): flip, Site(1): double_last, Site(3, "attention"): flip, Site(0): flip}
    found = execution.cascade(model, wave, [together, (Site(2), flip)])
    close(found[1:2], hooked(model, wave, together))
    close(found[2:3], hooked(model, wave, {Site(2): flip}))


def test_cascade_without_edits_equals_clean_forward(model, wave):
    """A cascade without edits gives the logits of the clean forward alone."""
    found = execution.cascade(model, wave, [])
    assert found.shape == (1, len(model.labels))
    close(found, hooked(model, wave, {}))


def test_cascade_read_equals_hooked_forwards(model, wave):
    """Reading a cascade gives, for every edit and without one, what `capture` sees in a hooked forward."""
    sites = [Site(0), Site(1, "ffn_hidden"), Site(2), Site(3, "attention"), Site(3)]
    edits = [(Site(0), flip), (Site(1, "ffn_hidden"), flip), (Site(2), double_last), (Site(3, "attention"), flip)]
    _, seen = execution.cascade_read(model, wave, edits, {s: lambda hidden: hidden for s in sites}, batch=3)
    for row, edit in enumerate([{}] + [dict([e]) for e in edits]):
        with torch.no_grad(), hooks.edit(model, edit), hooks.capture(model, sites) as kept:
            model.logits(model.tensor(wave))
        for site in sites:
            close(seen[site][row : row + 1], kept[site])


def test_cascade_read_is_clean_below_the_edit(model, wave):
    """Reading a cascade gives clean values at a site below the edit, and edited ones at the edited site."""
    readout_functions = {Site(1): lambda hidden: hidden.norm(dim=-1)}
    _, seen = execution.cascade_read(model, wave, [(Site(2), flip), (Site(1), torch.zeros_like)], readout_functions)
    assert torch.equal(seen[Site(1)][1], seen[Site(1)][0])
    assert (seen[Site(1)][2] == 0).all() and (seen[Site(1)][0] > 0).all()


def test_cascade_keeps_surrounding_edits(model, wave):
    """An edit hooked around a cascade reaches every row of it, the clean one included."""
    with hooks.edit(model, {Site(1): flip}):
        found = execution.cascade(model, wave, [(Site(2), double_last)])
    close(found[:1], hooked(model, wave, {Site(1): flip}))
    close(found[1:], hooked(model, wave, {Site(1): flip, Site(2): double_last}))


def test_cascade_halves_batch_when_out_of_memory(model, wave, monkeypatch):
    """A cascade takes smaller batches when memory runs out, with equal results, and raises if none fits."""
    step, rows = execution._step, []

    def small(model, state, *rest):
        rows.append(len(state.hidden))
        if len(state.hidden) > 3:
            raise torch.OutOfMemoryError("too much")
        return step(model, state, *rest)

    edits = [(Site(1), lambda h, a=a: h * a) for a in np.linspace(0, 2, 9)]
    whole = execution.cascade(model, wave, edits)
    monkeypatch.setattr(execution, "_step", small)
    assert torch.allclose(execution.cascade(model, wave, edits, batch=9), whole, atol=1e-5)
    assert rows[0] == 9 and rows[-1] <= 3
    monkeypatch.setattr(execution, "_step", lambda *rest: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(torch.OutOfMemoryError):
        execution.cascade(model, wave, edits)


def test_in_batches_halves_when_out_of_memory():
    """Out of memory halves the batch, at one row the error is raised, and a batch size of 0 is refused."""
    sizes = []

    def function(rows):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("full")
        return torch.tensor(list(rows))

    assert torch.cat([*execution.in_batches(function, 7, 5)]).tolist() == list(range(7)) and sizes == [5, 3, 2, 2, 2, 1]
    with pytest.raises(ValueError, match="batch must be 1 or more"):
        list(execution.in_batches(function, 7, 0))
    with pytest.raises(torch.OutOfMemoryError):
        list(execution.in_batches(lambda rows: function(range(9)), 3, 2))


def test_cascade_leaves_no_hooks(model, wave):
    """A cascade in which an edit raises an error leaves no hooks on the model."""

    def broken(hidden):
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError):
        execution.cascade(model, wave, [(Site(1), flip), (Site(2, "ffn_out"), broken)])
    assert not any(m._forward_hooks for m in map(model.architecture.module, model.sites(PARTS[1:])))


@pytest.mark.parametrize("edit", [Site(1), (Site(1), None), {}, 3])
def test_cascade_refuses_malformed_edits(model, wave, edit):
    """A cascade refuses an edit without a function or a site, and says what an edit must be."""
    with pytest.raises(ValueError, match="an edit must be"):
        execution.cascade(model, wave, [edit])


def test_prefix_with_suffix_equals_plain_gradients(tiny, wave):
    """Gradients through `prefix` and `suffix` equal those of the plain forward."""
    model = tiny("large")
    x = model.tensor(wave).requires_grad_()
    plain = torch.autograd.grad(model.logits(x)[0, 3], x)[0]
    state = execution.prefix(model, x, 2)
    ours = torch.autograd.grad(execution.suffix(model, state)[0, 3], x)[0]
    close(ours, plain)


@pytest.fixture(scope="module", params=["group", "layer"])
def full_size(request, tmp_path_factory, device):
    """A random network of the size of wavlm-base-plus, and one with the front end and norms of large."""
    torch.manual_seed(0)
    large = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
    config = WavLMConfig(num_labels=8, **(large if request.param == "layer" else {}))
    folder = tmp_path_factory.mktemp("full")
    WavLMForSequenceClassification(config).save_pretrained(folder)
    with pytest.warns(UserWarning, match="preprocessor_config"):
        return models.load(folder, device=device)


@pytest.mark.full
def test_cascade_equals_hooked_forwards_at_full_size(full_size):
    """A cascade equals hooked forwards at the size of wavlm-base-plus, also with the front end and norms of large."""
    wave = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    edits = [(Site(2), flip), (Site(7, "ffn_hidden"), flip), (Site(10, "attention"), flip), (Site(12, "ffn_out"), flip)]
    found = execution.cascade(full_size, wave, edits)
    expected = [hooked(full_size, wave, edit) for edit in [{}, *(dict([e]) for e in edits)]]
    close(found, torch.cat(expected), 1e-4)


@pytest.mark.full
def test_cascade_takes_fewer_flops_than_hooks(full_size):
    """A cascade of 12 edits takes at least 2.5 times fewer FLOPs than 12 hooked forwards, with equal results."""
    from torch.utils.flop_counter import FlopCounterMode

    wave = 0.1 * np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    edits = [(Site(layer), flip) for layer in range(1, 13)]
    with FlopCounterMode(display=False) as ours:
        found = execution.cascade(full_size, wave, edits)
    with FlopCounterMode(display=False) as plain:
        expected = torch.cat([hooked(full_size, wave, dict([e])) for e in edits])
    close(found[1:], expected, 1e-4)
    assert plain.get_total_flops() / ours.get_total_flops() >= 2.5
