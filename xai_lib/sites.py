"""`Site`, a place in a network, and what all families of networks have in common."""

from __future__ import annotations

from contextlib import contextmanager
from typing import NamedTuple

import torch

PARTS = ("block", "attention", "ffn_hidden", "ffn_out")


class Site(NamedTuple):
    """A place in the network: `layer` 0…L and `part`.

    `block` is the residual stream after the layer (layer 0: what enters the first one), `attention` and `ffn_out` are
    what is added to it, `ffn_hidden` is the feed-forward's inside, after the non-linearity. `heads`, where a family
    allows, is what the attention heads give, side by side, before they are mixed into `attention`. Any other place is
    the path of its module, in place of the layer, and the part `module`.
    """

    layer: int | str
    part: str = "block"


class State(NamedTuple):
    """A forward stopped after `layer`: its output [batch, frame, neuron] and what later layers also need."""

    layer: int
    hidden: torch.Tensor
    bias: torch.Tensor | None = None  # of attention, by relative position [batch * heads, frame, frame]
    total: torch.Tensor | None = None  # weighted sum of the layers so far, where the head reads one

    def spread(self, rows: int) -> State:
        """`rows` copies of a state of one row."""
        wide = [None if t is None else t.repeat(rows, 1, 1) for t in self[1:]]
        return State(self.layer, *wide)


class Family:
    """What families have in common, where they do not say otherwise.

    `parts`; `class_tokens`, frames at the beginning that stand for the whole clip; `timeline`, whether frames follow one
    another every `hop` samples; `resumable`, whether a forward can be stopped after a layer and go on from there (`embed`,
    `step`, `replace`, `finish`, `classify`); `residual`, whether a block adds to what came in (the residual stream);
    `overwrites`, whether operations in place may follow a site.
    """

    parts = PARTS
    class_tokens = 0
    resumable = True
    residual = True
    overwrites = False
    timeline = False
    is_open = False
    window = None  # seconds of a clip that are heard, where what follows would be cut off
    seconds = None  # that a forward covers, whatever the clip's length, where it has to be told

    def __init__(self, network):
        self.network = network
        self.base = getattr(network, network.base_model_prefix, network)

    @contextmanager
    def opened(self, site: Site):
        """The module whose output, or its first item, is the site, while it is."""
        yield self.network.get_submodule(site.layer) if site.part == "module" else self.module(site)

    def has(self, site: Site) -> bool:
        """Whether there is such a site: what enters the first layer is a block only."""
        return site.layer > 0 or site.part == "block"

    def width(self, part: str) -> int:
        """Number of neurons of a part."""
        config = self.base.config
        return config.intermediate_size if part == "ffn_hidden" else config.hidden_size

    def seen(self, site: Site, output: torch.Tensor) -> torch.Tensor:
        """What the site's module gave, as [batch, frame, neuron]."""
        return output if output.ndim > 2 else output[:, None]

    def given(self, site: Site, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """[batch, frame, neuron] as the module would have given it, in place of its `output`."""
        return hidden.reshape(output.shape)

    def logits(self, x) -> torch.Tensor:
        """Logits [batch, label] of what `prepare` gave."""
        return self.network(x).logits

    def norms(self, layer: int) -> tuple | None:
        """The layer norms that a block ends in, after attention and after the whole; None where the stream passes."""
        return None

    def replace(self, state: State, hidden: torch.Tensor) -> State:
        """The same state with another output of its layer."""
        return state._replace(hidden=hidden)


class PassedSites:
    """The sites that a forward of the whole network has passed; ValueError where it passes one again."""

    def __init__(self):
        self.sites = None  # outside of such a forward

    def watch(self, network, stack):
        """Know when forwards of the network begin and end, while the stack is open."""
        stack.callback(network.register_forward_pre_hook(self._begin, prepend=True).remove)
        stack.callback(network.register_forward_hook(self._end, always_call=True).remove)

    def _begin(self, module, args):
        self.sites = set()

    def _end(self, module, args, output):
        self.sites = None

    def note(self, site):
        """Take a site that is passed."""
        if self.sites is None:
            return
        if site in self.sites:
            raise ValueError(
                f"layer {site.layer}, {site.part} runs more than once in a forward, so it is not clear which of its outputs "
                "is meant: name a module that runs once"
            )
        self.sites.add(site)
