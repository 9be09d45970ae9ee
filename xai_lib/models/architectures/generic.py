"""Any module as an architecture: its sites are paths, and a forward runs whole."""

import re
import warnings

import numpy as np
import torch

from ..sites import Site
from .base import Family

_AXES = ("batch", "frame", "time", "neuron")


_UNFIT = (RuntimeError, AssertionError, IndexError)  # of a length that a module does not take


class Wrapped(Family):
    """The family of one module; see `models.wrap`, whose arguments these are."""

    resumable = False
    residual = False  # that its blocks add to what comes in is not known
    overwrites = True
    span = 1

    def __init__(self, module, sites, *, layout, preprocess, read, n_labels, seconds=None):
        self.network = self.base = module
        self.preprocess, self.read, self.n_labels, self.seconds = preprocess, read, n_labels, seconds
        self.window = seconds
        self.sites = self._paths(sites)
        self.parts = tuple(dict.fromkeys(site.part for site in self.sites))
        self.layers = range(max(site.layer for site in self.sites))
        self.layout = layout
        self.widths = {}
        self.steps = {}  # of time that so many frames take, where they lie along two axes
        for words in map(str.split, [layout] if isinstance(layout, str) else layout.values()):
            told = "the layout " + repr(" ".join(words))
            if set(words) - {*_AXES} or words.count("batch") != 1 or words.count("neuron") != 1:
                raise ValueError(f"{told} is not of one batch, one neuron and any number of frame")
            if words.count("time") > 1 or (seconds and words.count("frame") > 1):
                raise ValueError(f"{told} does not say which one of its frames is time: call that time")

    def _paths(self, sites) -> dict:
        """{Site: path}, all of which are there."""
        modules, found = dict(self.network.named_modules()), {}
        for place, path in sites.items():
            if isinstance(place, str) and "{}" in path:
                pattern = re.escape(path).replace(r"\{\}", r"(\d+)")
                numbers = sorted(int(hit[1]) for name in modules if (hit := re.fullmatch(pattern, name)))
                if not numbers:
                    raise ValueError(f"no module is called {path} with a number for {{}}")
                found |= {Site(number + 1, place): path.replace("{}", str(number)) for number in numbers}
            elif path not in modules:
                raise ValueError(f"there is no module {path}: there are {', '.join(list(modules)[1:9])} …")
            else:
                found[Site(*place) if isinstance(place, (tuple, list)) else Site(place)] = path
        wrong = [site for site in found if not isinstance(site.layer, int) or site.layer < 0 or site.part == "module"]
        if wrong or not found:
            raise ValueError('sites are {(layer, part): path}, layers from 0 up, or {part: "path.with.{}"}')
        return found

    def has(self, site: Site) -> bool:
        """Whether such a site was named."""
        return site in self.sites

    def width(self, part: str) -> int:
        """Number of neurons of a part; ValueError where its layers differ."""
        widths = {width for site, width in self.widths.items() if site.part == part}
        if len(widths) != 1:
            raise ValueError(
                f"the layers of {part} have {', '.join(map(str, sorted(widths)))} neurons: take one by one"
            )
        return widths.pop()

    def module(self, site: Site):
        """The module whose output, or its first item, is the site."""
        return self.network.get_submodule(self.sites[site])

    def linear(self, site: Site):
        """The site's module, where it is a linear map."""
        module = self.module(site)
        return module if isinstance(module, torch.nn.Linear) else None

    def seen(self, site: Site, output: torch.Tensor) -> torch.Tensor:
        """What the site's module gave, as [batch, frame, neuron]."""
        axes, time = self._axes(site, output)
        hidden = output.permute(axes).flatten(1, -2) if len(axes) > 2 else output.permute(axes)[:, None]
        if time:
            self.steps[hidden.shape[1]] = output.shape[time[0]]
        return hidden

    def given(self, site: Site, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """[batch, frame, neuron] as the module would have given it, in place of its `output`."""
        axes, _ = self._axes(site, output)
        return hidden.reshape([output.shape[axis] for axis in axes]).permute([*np.argsort(axes)])

    def _axes(self, site, output):
        """Where batch, the frames, time the last of them, and the neurons are in an output; and where time alone is."""
        words = self.layout
        if not isinstance(words, str):
            path = site.layer if site.part == "module" else self.sites[site]
            parts = {where: place.part for place, where in self.sites.items()}
            words = words.get(path, words.get(parts.get(path), "batch frame neuron"))
        words = words.split()
        if len(words) != output.ndim:
            shape = f"an output of shape {tuple(output.shape)}"
            raise ValueError(
                f"layer {site.layer}, {site.part} gives {shape}, which is not {' '.join(words)!r}: see layout"
            )
        found = {axis: [i for i, word in enumerate(words) if word == axis] for axis in _AXES}
        return [i for places in found.values() for i in places], found["time"]

    def prepare(self, x: torch.Tensor, preprocessor: dict):
        """What the module is called with."""
        return x if self.preprocess is None else self.preprocess(x)

    def logits(self, x) -> torch.Tensor:
        """Logits [batch, label] of the module's argument; [batch, 0] where it has no labels."""
        output = self.network(*x) if isinstance(x, tuple) else self.network(x)
        if not self.n_labels:
            return torch.zeros(len(x[0] if isinstance(x, tuple) else x), 0)
        if self.read is not None:
            return self.read(output)
        output = getattr(output, "logits", output)
        return output[0] if isinstance(output, tuple) else output

    def places(self, n_samples: int, sample_rate: int, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Centre of each of `n` frames, spread evenly over the clip or a window of `seconds`; and which lie in the clip."""
        if n is None:
            raise ValueError("a wrapped module does not tell how many frames a clip gives: not for this")
        clip, steps = n_samples / sample_rate, self.steps.get(n, n)
        at = (np.arange(steps) + 0.5) / steps * (self.seconds or clip)
        inside = (at < clip) | (at == at[0])  # a clip shorter than half a frame
        return np.tile(at, n // steps), np.tile(inside, n // steps)

    def n_frames(self, n_samples: int):
        """Not known before a forward."""
        raise ValueError("a wrapped module does not tell how many frames a clip gives: not for this")

    @property
    def hop(self):
        """Not known."""
        raise ValueError("a wrapped module does not tell how far its frames are apart: not for this")

    def embed(self, x):
        """Not possible."""
        raise ValueError("a wrapped module cannot be stopped after a layer: not for this")

    def probe(self, model) -> None:
        """Try two short waveforms: learn how wide the sites are, refuse a layout or logits that do not fit."""
        x = model.noise(2)
        try:
            shapes, logits = model.tried(self.sites, x)
        except _UNFIT as error:
            given = f"the module does not take {x.shape[1] / model.sample_rate:g} s of sound ({error})"
            raise ValueError(f"{given}: if it takes one length only, say with seconds= which") from error
        for site, shape in shapes.items():
            if shape[0] != 2:
                raise ValueError(
                    f"{self.sites[site]} gives {shape[0]} rows for two clips: say with layout what is the batch"
                )
            self.widths[site] = shape[-1]
        if tuple(logits) != (2, self.n_labels):
            got = f"of shape {tuple(logits)} for two clips, and {self.n_labels} labels were named"
            raise ValueError(
                f"the module's output is {got}: give labels of each logit, or read= that takes logits from it"
            )
        self._fixed(model, shapes)

    def _fixed(self, model, shapes):
        """Compare how many frames a clip of another length gives with whether it was said that a window is fixed."""
        try:
            other, _ = model.tried(self.sites, model.noise(2, self.seconds / 2 if self.seconds else 2))
        except (*_UNFIT, ValueError):  # it takes one length only
            return
        for site, shape in shapes.items():
            if shape[-1] != other[site][-1]:
                raise ValueError(
                    f"{self.sites[site]} has {shape[-1]} neurons in one clip and {other[site][-1]} in a longer one, "
                    "as frames do: say with layout which axis is which"
                )
        frames = [(shape[1], other[site][1]) for site, shape in shapes.items() if shape[1] > 1]
        same = bool(frames) and all(one == two for one, two in frames)
        if same and not self.seconds:
            warnings.warn(
                f"clips of 1 s and of 2 s both give {frames[0][0]} frames: the module seems to pad or cut clips to a "
                "window of its own. Say how long that is, seconds=, or the padding counts as the clip does",
                stacklevel=4,
            )
        if self.seconds and frames and not same:
            raise ValueError(
                f"frames grow with the clip, so that no window is fixed: leave seconds={self.seconds:g} out"
            )
