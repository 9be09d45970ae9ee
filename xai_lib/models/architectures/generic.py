"""Any module as an architecture: its sites are paths, and forward passes run without interruption."""

from __future__ import annotations

import re
import warnings

import numpy as np
import torch

from ..sites import Site
from .base import Architecture

_AXES = ("batch", "frame", "time", "neuron")
_UNFIT = (RuntimeError, AssertionError, IndexError)  # raised for a length that a module does not take


class Wrapped(Architecture):
    """The architecture of one module; its arguments are those of `models.wrap`."""

    resumable = False
    residual = False  # unknown whether its blocks add to their input
    overwrites = True
    span = 1

    def __init__(self, module, sites, *, layout, preprocess, read, n_labels, seconds=None):
        self.network = module
        self.base = module
        self.preprocess = preprocess
        self.read = read
        self.n_labels = n_labels
        self.seconds = seconds
        self.window = seconds
        self.sites = self._paths(sites)
        self.parts = tuple(dict.fromkeys(site.part for site in self.sites))
        self.layers = range(max(site.layer for site in self.sites))
        self.layout = layout
        self.widths = {}
        self.steps = {}  # {number of frames: number of time steps}, if frames lie along two axes
        for axes in [layout] if isinstance(layout, str) else layout.values():
            self._check_layout(axes.split())

    def _check_layout(self, axes):
        """Raise ValueError if the axes of an output, in order, are not those that `models.wrap` describes."""
        name = "the layout " + repr(" ".join(axes))
        if set(axes) - {*_AXES} or axes.count("batch") != 1 or axes.count("neuron") != 1:
            raise ValueError(f"{name} is invalid: expected batch once, neuron once, and frame any number of times")
        if axes.count("time") > 1 or (self.seconds and axes.count("frame") > 1):
            raise ValueError(f"{name} does not say which of its frame axes is time: name that axis time")

    def _paths(self, sites) -> dict:
        """Return {Site: path}; raise ValueError if a path does not exist."""
        modules = dict(self.network.named_modules())
        paths = {}
        for key, path in sites.items():
            if isinstance(key, str) and "{}" in path:
                paths |= _numbered_paths(key, path, modules)
            elif path not in modules:
                raise ValueError(f"there is no module {path}: there are {', '.join(list(modules)[1:9])} …")
            else:
                site = Site(*key) if isinstance(key, (tuple, list)) else Site(key)
                paths[site] = path
        invalid = [site for site in paths if not isinstance(site.layer, int) or site.layer < 0 or site.part == "module"]
        if invalid or not paths:
            raise ValueError('sites must be {(layer, part): path}, layers from 0 up, or {part: "path.with.{}"}')
        return paths

    def has(self, site: Site) -> bool:
        """Return True if the site is one of those given to `models.wrap`."""
        return site in self.sites

    def width(self, part: str) -> int:
        """Return the number of neurons of a part; raise ValueError if its layers differ."""
        widths = {width for site, width in self.widths.items() if site.part == part}
        if len(widths) != 1:
            counts = ", ".join(str(width) for width in sorted(widths))
            raise ValueError(f"the layers of {part} have {counts} neurons: pass one layer at a time")
        return widths.pop()

    def module(self, site: Site):
        """Return the module whose output, or its first item, is the site."""
        return self.network.get_submodule(self.sites[site])

    def linear(self, site: Site):
        """Return the site's module if it is a linear map, else None."""
        module = self.module(site)
        return module if isinstance(module, torch.nn.Linear) else None

    def to_frames(self, site: Site, output: torch.Tensor) -> torch.Tensor:
        """Convert the output of the site's module to [batch, frame, neuron]."""
        axes = self._axes(site, output)
        order = _order(axes)
        frames_apart = output.permute(order)
        if len(order) == 2:  # batch and neuron alone
            hidden = frames_apart[:, None]
        else:
            hidden = frames_apart.flatten(1, -2)
        if "time" in axes:
            self.steps[hidden.shape[1]] = output.shape[axes.index("time")]
        return hidden

    def from_frames(self, site: Site, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Convert [batch, frame, neuron] to the layout of the module's `output`, to replace it."""
        order = _order(self._axes(site, output))
        frames_apart = hidden.reshape([output.shape[axis] for axis in order])
        return frames_apart.permute([*np.argsort(order)])

    def _axes(self, site, output):
        """Return the names of an output's axes; raise ValueError if their number is another."""
        axes = self._layout(site).split()
        if len(axes) != output.ndim:
            shape = f"an output of shape {tuple(output.shape)}"
            raise ValueError(
                f"layer {site.layer}, {site.part} returned {shape}, which is not {' '.join(axes)!r}: set layout="
            )
        return axes

    def _layout(self, site):
        """Return the layout of a site's output: that of its path, or else of its part, or else the default."""
        if isinstance(self.layout, str):
            return self.layout
        path = site.layer if site.part == "module" else self.sites[site]
        if path in self.layout:
            return self.layout[path]
        parts = {path_of_site: known.part for known, path_of_site in self.sites.items()}
        return self.layout.get(parts.get(path), "batch frame neuron")

    def prepare(self, x: torch.Tensor, preprocessor: dict):
        """Return the argument of the module for raw waveforms."""
        return x if self.preprocess is None else self.preprocess(x)

    def logits(self, x) -> torch.Tensor:
        """Compute logits [batch, label] of the module's argument; [batch, 0] if it has no labels."""
        arguments = x if isinstance(x, tuple) else (x,)
        output = self.network(*arguments)
        if not self.n_labels:
            return torch.zeros(len(arguments[0]), 0)
        if self.read is not None:
            return self.read(output)
        logits = getattr(output, "logits", output)
        if isinstance(logits, tuple):
            return logits[0]
        return logits

    def frame_times(self, n_samples: int, sample_rate: int, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the centre of each of `n` frames in seconds, and the mask of valid frames (in the clip).

        Frames are spread evenly over the clip, or a window of `seconds`.
        """
        if n is None:
            raise ValueError(
                "the number of frames of a wrapped module is unknown before a forward pass: "
                "this needs a model loaded with models.load"
            )
        clip_seconds = n_samples / sample_rate
        steps = self.steps.get(n, n)
        times = (np.arange(steps) + 0.5) / steps * (self.seconds or clip_seconds)
        inside = (times < clip_seconds) | (times == times[0])  # at least one, for a clip shorter than half a frame
        return np.tile(times, n // steps), np.tile(inside, n // steps)

    def n_frames(self, n_samples: int):
        """Raise ValueError: the number of frames is not known before a forward pass."""
        raise ValueError(
            "the number of frames of a wrapped module is unknown before a forward pass: "
            "this needs a model loaded with models.load"
        )

    @property
    def hop(self):
        """Raise ValueError: the distance of frames is not known."""
        raise ValueError(
            "the hop of a wrapped module is unknown: this needs a model with a timeline of frames, such as WavLM"
        )

    def embed(self, x):
        """Raise ValueError: the forward pass cannot be stopped after the embedding."""
        raise ValueError("a wrapped module cannot be stopped after a layer: this needs a model loaded with models.load")

    def probe(self, model) -> None:
        """Record the number of neurons of each site on two short waveforms.

        Raises ValueError if a layout or the logits do not fit.
        """
        x = model.dummy_input(2)
        try:
            shapes, logits = model.trace_shapes(self.sites, x)
        except _UNFIT as error:
            problem = f"the module does not take {x.shape[1] / model.sample_rate:g} s of sound ({error})"
            raise ValueError(f"{problem}: if it takes one length only, give it as seconds=") from error
        for site, shape in shapes.items():
            if shape[0] != 2:
                raise ValueError(
                    f"{self.sites[site]} returned {shape[0]} rows for two clips: give the batch axis in layout="
                )
            self.widths[site] = shape[-1]
        if tuple(logits) != (2, self.n_labels):
            mismatch = f"has shape {tuple(logits)} for two clips, but there are {self.n_labels} labels"
            raise ValueError(
                f"the module's output {mismatch}: give one label per logit, or read= that extracts the logits"
            )
        self._check_window(model, shapes)

    def _check_window(self, model, shapes):
        """Warn or raise ValueError if frames of a clip of another length contradict `seconds`, or look like neurons."""
        other_seconds = self.seconds / 2 if self.seconds else 2
        try:
            other_shapes, _ = model.trace_shapes(self.sites, model.dummy_input(2, other_seconds))
        except (*_UNFIT, ValueError):  # it takes one length only
            return
        for site, shape in shapes.items():
            if shape[-1] != other_shapes[site][-1]:
                raise ValueError(
                    f"{self.sites[site]} has {shape[-1]} neurons in one clip and {other_shapes[site][-1]} in a longer "
                    "one, so this axis seems to be frames: give the axes as layout="
                )
        with_frames = [site for site, shape in shapes.items() if shape[1] > 1]
        if not with_frames:
            return
        constant = all(shapes[site][1] == other_shapes[site][1] for site in with_frames)
        if constant and not self.seconds:
            count = shapes[with_frames[0]][1]
            warnings.warn(
                f"clips of 1 s and of 2 s both give {count} frames: the module seems to pad or cut clips to a "
                "fixed window; give its length as seconds=, or padding is treated as part of the clip",
                stacklevel=4,
            )
        if self.seconds and not constant:
            raise ValueError(
                f"the number of frames grows with the clip, so no window is fixed: omit seconds={self.seconds:g}"
            )


def _numbered_paths(part, pattern, modules) -> dict:
    """Return {Site: path} of the modules whose paths are `pattern` with a number for {}: layers are numbered from 1."""
    expression = re.escape(pattern).replace(r"\{\}", r"(\d+)")
    matches = [re.fullmatch(expression, name) for name in modules]
    numbers = sorted(int(match[1]) for match in matches if match)
    if not numbers:
        raise ValueError(f"no module is called {pattern} with a number for {{}}")
    return {Site(number + 1, part): pattern.replace("{}", str(number)) for number in numbers}


def _order(axes) -> list[int]:
    """Return the indices of an output's axes in the order batch, frames, time, neuron."""
    return sorted(range(len(axes)), key=lambda index: _AXES.index(axes[index]))
