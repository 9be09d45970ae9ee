"""`Site`, a place in a network, and what all families of networks have in common."""

from __future__ import annotations

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
