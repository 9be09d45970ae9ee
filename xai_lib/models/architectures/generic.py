"""Any module as an architecture: its sites are paths, and forward passes run without interruption."""

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
        self.network = self.base = module
        self.preprocess, self.read, self.n_labels, self.seconds = preprocess, read, n_labels, seconds
        self.window = seconds
        self.sites = self._paths(sites)
        self.parts = tuple(dict.fromkeys(site.part for site in self.sites))
        self.layers = range(max(site.layer for site in self.sites))
        self.layout = layout
        self.widths = {}
        self.steps = {}  # {number of frames: number of time steps}, if frames lie along two axes
        for axes in map(str.split, [layout] if isinstance(layout, str) else layout.values()):
            name = "the layout " + repr(" ".join(axes))
            if set(axes) - {*_AXES} or axes.count("batch") != 1 or axes.count("neuron") != 1:
                raise ValueError(f"{name} is invalid: expected batch once, neuron once, and frame any number of times")
            if axes.count("time") > 1 or (seconds and axes.count("frame") > 1):
                raise ValueError(f"{name} does not say which of its frame axes is time: name that axis time")

    def _paths(self, sites) -> dict:
        """Return {Site: path}; raise ValueError if a path does not exist."""
        modules, paths = dict(self.network.named_modules()), {}
        for key, path in sites.items():
            if isinstance(key, str) and "{}" in path:
                pattern = re.escape(path).replace(r"\{\}", r"(\d+)")
                numbers = sorted(int(match[1]) for name in modules if (match := re.fullmatch(pattern, name)))
                if not numbers:
                    raise ValueError(f"no module is called {path} with a number for {{}}")
                paths |= {Site(number + 1, key): path.replace("{}", str(number)) for number in numbers}
            elif path not in modules:
                raise ValueError(f"there is no module {path}: there are {', '.join(list(modules)[1:9])} …")
            else:
                paths[Site(*key) if isinstance(key, (tuple, list)) else Site(key)] = path
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
            raise ValueError(
                f"the layers of {part} have {', '.join(map(str, sorted(widths)))} neurons: pass one layer at a time"
            )
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
        axes, time = self._axes(site, output)
        hidden = output.permute(axes).flatten(1, -2) if len(axes) > 2 else output.permute(axes)[:, None]
        if time:
            self.steps[hidden.shape[1]] = output.shape[time[0]]
        return hidden

    def from_frames(self, site: Site, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Convert [batch, frame, neuron] to the layout of the module's `output`, to replace it."""
        axes, _ = self._axes(site, output)
        return hidden.reshape([output.shape[axis] for axis in axes]).permute([*np.argsort(axes)])

    def _axes(self, site, output):
        """Return the indices of an output's axes in the order batch, frames, time, neuron; and that of time alone."""
        axes = self.layout
        if not isinstance(axes, str):
            path = site.layer if site.part == "module" else self.sites[site]
            parts = {path_of_site: known.part for known, path_of_site in self.sites.items()}
            axes = axes.get(path, axes.get(parts.get(path), "batch frame neuron"))
        axes = axes.split()
        if len(axes) != output.ndim:
            shape = f"an output of shape {tuple(output.shape)}"
            raise ValueError(
                f"layer {site.layer}, {site.part} returned {shape}, which is not {' '.join(axes)!r}: set layout="
            )
        indices = {name: [i for i, axis in enumerate(axes) if axis == name] for name in _AXES}
        return [i for group in indices.values() for i in group], indices["time"]

    def prepare(self, x: torch.Tensor, preprocessor: dict):
        """Return the argument of the module for raw waveforms."""
        return x if self.preprocess is None else self.preprocess(x)

    def logits(self, x) -> torch.Tensor:
        """Compute logits [batch, label] of the module's argument; [batch, 0] if it has no labels."""
        output = self.network(*x) if isinstance(x, tuple) else self.network(x)
        if not self.n_labels:
            return torch.zeros(len(x[0] if isinstance(x, tuple) else x), 0)
        if self.read is not None:
            return self.read(output)
        output = getattr(output, "logits", output)
        return output[0] if isinstance(output, tuple) else output

    def frame_times(self, n_samples: int, sample_rate: int, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the centre of each of `n` frames in seconds, and the mask of valid frames (in the clip).

        Frames are spread evenly over the clip, or a window of `seconds`.
        """
        if n is None:
            raise ValueError(
                "the number of frames of a wrapped module is unknown before a forward pass: "
                "this needs a model loaded with models.load"
            )
        clip, steps = n_samples / sample_rate, self.steps.get(n, n)
        times = (np.arange(steps) + 0.5) / steps * (self.seconds or clip)
        inside = (times < clip) | (times == times[0])  # at least one, for a clip shorter than half a frame
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
        try:
            other_shapes, _ = model.trace_shapes(
                self.sites, model.dummy_input(2, self.seconds / 2 if self.seconds else 2)
            )
        except (*_UNFIT, ValueError):  # it takes one length only
            return
        for site, shape in shapes.items():
            if shape[-1] != other_shapes[site][-1]:
                raise ValueError(
                    f"{self.sites[site]} has {shape[-1]} neurons in one clip and {other_shapes[site][-1]} in a longer "
                    "one, so this axis seems to be frames: give the axes as layout="
                )
        counts = [(shape[1], other_shapes[site][1]) for site, shape in shapes.items() if shape[1] > 1]
        constant = bool(counts) and all(count == other_count for count, other_count in counts)
        if constant and not self.seconds:
            warnings.warn(
                f"clips of 1 s and of 2 s both give {counts[0][0]} frames: the module seems to pad or cut clips to a "
                "fixed window; give its length as seconds=, or padding is treated as part of the clip",
                stacklevel=4,
            )
        if self.seconds and counts and not constant:
            raise ValueError(
                f"the number of frames grows with the clip, so no window is fixed: omit seconds={self.seconds:g}"
            )
