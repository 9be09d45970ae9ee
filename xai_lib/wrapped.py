"""Any module as a family: its sites are paths, and a forward runs whole."""

import re

import numpy as np
import torch

from .sites import Family, Site

_AXES = {"batch", "frame", "neuron"}


class Wrapped(Family):
    """The family of one module; see `models.wrap`, whose arguments these are."""

    resumable = False
    span = 1

    def __init__(self, module, sites, *, layout, preprocess, read, n_labels):
        self.network = self.base = module
        self.preprocess, self.read, self.n_labels = preprocess, read, n_labels
        self.sites = self._paths(sites)
        self.parts = tuple(dict.fromkeys(site.part for site in self.sites))
        self.layers = range(max(site.layer for site in self.sites))
        self.layout = layout
        self.widths = {}
        for words in [layout] if isinstance(layout, str) else layout.values():
            if set(words.split()) - _AXES or words.split().count("batch") != 1 or words.split().count("neuron") != 1:
                raise ValueError(f"the layout {words!r} is not of one batch, one neuron and any number of frame")

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
        axes = self._axes(site, output)
        return output.permute(axes).flatten(1, -2) if len(axes) > 2 else output.permute(axes)[:, None]

    def given(self, site: Site, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """[batch, frame, neuron] as the module would have given it, in place of its `output`."""
        axes = self._axes(site, output)
        return hidden.reshape([output.shape[axis] for axis in axes]).permute([*np.argsort(axes)])

    def _axes(self, site, output):
        """Where batch, the frames and the neurons are in an output."""
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
        return [i for axis in ("batch", "frame", "neuron") for i, word in enumerate(words) if word == axis]

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
        """Centre of each of `n` frames in seconds, taken to be spread evenly over the clip."""
        if n is None:
            raise ValueError("a wrapped module does not tell how many frames a clip gives: not for this")
        return (np.arange(n) + 0.5) / n * n_samples / sample_rate, np.ones(n, bool)

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
        noise = torch.randn(2, model.sample_rate, generator=torch.Generator().manual_seed(0)).to(model.device)
        shapes, logits = model.tried(self.sites, 0.1 * noise)
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
