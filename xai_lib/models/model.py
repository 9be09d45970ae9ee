"""`Model`, an audio classifier with access to its layers: raw waveform in, logits and all layers out."""

from __future__ import annotations

import copyreg
import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import audio
from ..corpora import as_clips
from . import windows
from .architectures import ARCHITECTURES
from .sites import PassedSites, Site

if TYPE_CHECKING:
    from .architectures.base import Architecture

SiteLike = Site | tuple[int, str] | int | str
OUTPUTS = {"multi_label_classification": "several labels", "regression": "numbers"}  # by transformers' problem_type
MAX_SECONDS = 60  # longest clip in one forward pass: memory grows with the square of its length


class UntrainedHead(ValueError):
    """The head was never trained, so its outputs have no meaning."""


class Model:
    """An audio classifier with access to its layers; float32, in eval mode, weights without gradients.

    Attributes
    ----------
    network : torch.nn.Module
        The Hugging Face module.
    labels : list of str
    sample_rate : int
        Hz.
    n_layers : int
        L; layers are 0 (input of the first) to L.
    outputs : {"one label", "several labels", "numbers"}
        Meaning of the logits: exclusive labels (softmax), independent labels (sigmoid), or numbers of a regression;
        from the checkpoint's `problem_type`.
    trained : str or None
        Why the head counts as trained.
    train_speakers, head_train_speakers, selection_speakers : list of str or None
        Speakers used to train the encoder, to train a head fitted later, and to select the weights, if recorded.
    trained_recordings : DataFrame or None
        `fingerprint`, `use` ("trained", "selected" or "head") and `speaker` of the training recordings, if recorded
        (`fingerprints.read`).
    hop, span : int
        Samples between frames, and in the receptive field of one frame of the front end.
    max_seconds : float
        Length of the longest clip in one forward pass. Up to 20 ms more are cut off at the end, as coders add some;
        longer clips are skipped by name, and `over_time` takes them. It can be set where the architecture has no window
        of its own and memory suffices.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        labels: list[str],
        name: str,
        trained: str | None,
        preprocessor: dict,
        device: torch.device,
        head: torch.nn.Module | None = None,
        architecture: Architecture | None = None,
    ):
        self.network = network.eval().requires_grad_(False).to(device)
        self.architecture = architecture or ARCHITECTURES[network.config.model_type](network)
        self.head = None if head is None else head.eval().requires_grad_(False).to(device)
        self.labels = labels
        self.name = name
        self.trained = trained
        self.device = device
        config = getattr(network, "config", None)
        self.outputs = "one label"
        if head is None:
            self.outputs = OUTPUTS.get(getattr(config, "problem_type", None), "one label")
        self.edited = 0  # number of active `hooks.edit` contexts
        self._widths = {}  # of modules given by path
        self.train_speakers = getattr(config, "xai_train_speakers", None)
        self.head_train_speakers = getattr(config, "xai_head_train_speakers", None)
        self.selection_speakers = getattr(config, "xai_selection_speakers", None)
        self.trained_recordings = None
        self.preprocessor = preprocessor
        self.sample_rate = preprocessor.get("sampling_rate", 16_000)
        self.n_layers = len(self.architecture.layers)
        self.span = self.architecture.span
        self.max_seconds = min(MAX_SECONDS, self.architecture.window or MAX_SECONDS)
        if head is not None:
            self._check_head()

    def __reduce__(self):
        """Pickle configuration and weights: a network with a parametrised convolution cannot be pickled as it is."""
        self.require_unedited()
        if not self.architecture.resumable:
            return copyreg.__newobj__, (Model,), vars(self)
        attributes = {name: value for name, value in vars(self).items() if name not in ("network", "architecture")}
        return _unpickled, (type(self.network), self.network.config, self.network.state_dict(), attributes)

    def __repr__(self):
        kind = type(self.architecture).__name__
        return f"<{self.name}: {kind}, layers 0–{self.n_layers}, {', '.join(self.labels) or 'no labels'}>"

    @property
    def hop(self) -> int:
        """Return the samples between frames; raise ValueError if frames do not follow one another in time."""
        return self.architecture.hop

    @property
    def frame_seconds(self) -> float:
        """Return the time from one frame to the next in seconds."""
        return self.hop / self.sample_rate

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of a waveform of `n_samples`."""
        return self.architecture.n_frames(n_samples)

    def times(self, waveform: np.ndarray | torch.Tensor, n: int | None = None) -> np.ndarray:
        """Return the centre of each frame in seconds, NaN for class tokens; `n`, the number, is needed if wrapped."""
        return self._frame_times(waveform, n)[0]

    def valid_frames(self, waveform: np.ndarray | torch.Tensor, n: int | None = None) -> np.ndarray:
        """Return the mask of valid frames, bool [frame]: those in the clip, neither class tokens nor padding."""
        return self._frame_times(waveform, n)[1]

    def _frame_times(self, waveform, n):
        """Return the centre of each frame in seconds and the mask of valid frames, both [frame]."""
        n_samples = np.shape(waveform)[-1]
        if n is None or self.architecture.resumable:
            return self.architecture.frame_times(n_samples, self.sample_rate)
        return self.architecture.frame_times(n_samples, self.sample_rate, n)

    def stream(self, clips: pd.DataFrame, skipped: dict | None = None) -> Iterator[tuple[Hashable, np.ndarray]]:
        """Yield what `audio.stream` does at the model's rate, for clips from one frame to `max_seconds` (+ 20 ms)."""
        longest = self.max_seconds * self.sample_rate
        return audio.stream(clips, self.sample_rate, shortest=self.span, longest=longest, skipped=skipped)

    def speech(self, waveform: np.ndarray, n: int | None = None) -> np.ndarray:
        """Return the mask of frames that contain speech, bool [frame]: `audio.speech_mask` at their centres."""
        if self.architecture.timeline:
            return audio.speech_mask(waveform, self.sample_rate, hop=self.hop, span=self.span)
        times, valid_frames = self._frame_times(waveform, n)
        grid = audio.grid(self.sample_rate)
        mask = audio.speech_mask(waveform, self.sample_rate)
        nearest = np.round((np.nan_to_num(times) * self.sample_rate - grid["span"] / 2) / grid["hop"]).astype(int)
        return valid_frames & mask[np.clip(nearest, 0, len(mask) - 1)]

    def sites(
        self, part: str | Sequence[str] = "hidden_state", layers: str | int | Sequence[int] = "all"
    ) -> list[Site]:
        """Return the sites of one or more parts, lowest layer first; `layers` is "all", an int or a sequence of int."""
        parts = (part,) if isinstance(part, str) else part
        if isinstance(layers, str) and layers == "all":
            for name in parts:
                self._check_part(name)
            candidates = itertools.product(range(self.n_layers + 1), parts)
            sites = [Site(layer, name) for layer, name in candidates]
            return [site for site in sites if self.architecture.has(site)]
        candidates = itertools.product(np.atleast_1d(layers).tolist(), parts)
        sites = {self.check((layer, name)) for layer, name in candidates}
        if not sites:
            raise ValueError('layers is empty: give at least one layer, or "all"')
        return sorted(sites)

    def n_neurons(self, site: SiteLike) -> int:
        """Return the number of neurons of a site."""
        site = self.check(site)
        if site.part != "module" and self.architecture.resumable:
            return self.architecture.width(site.part)
        if site.part != "module":
            return self.architecture.widths[site]
        if site not in self._widths:  # not in the configuration, but in the output of a short forward pass
            shapes, _ = self.trace_shapes([site], self.dummy_input(1))
            self._widths[site] = shapes[site][-1]
        return self._widths[site]

    def dummy_input(self, rows: int, seconds: float | None = None) -> torch.Tensor:
        """Return noise [batch, time] as a test input; default: one second, or the only length that the model takes."""
        n_samples = round((seconds or self.architecture.seconds or 1) * self.sample_rate)
        noise = torch.randn(rows, n_samples, generator=torch.Generator().manual_seed(0))
        return 0.1 * noise.to(self.device)

    @torch.no_grad()
    def trace_shapes(self, sites: Iterable[Site], x: torch.Tensor) -> tuple[dict, torch.Size]:
        """Return the shapes {site: [batch, frame, neuron]} and that of the logits for waveforms `x`.

        Raises ValueError if the forward pass does not reach a site.
        """
        shapes = {}
        passed = PassedSites()
        with ExitStack() as stack:
            passed.watch(self.network, stack)
            for site in sites:

                def note(module, args, output, site=site):
                    passed.note(site)
                    native = output[0] if isinstance(output, tuple) else output
                    shapes[site] = self.architecture.to_frames(site, native).shape

                module = stack.enter_context(self.architecture.hookable(site))
                stack.callback(module.register_forward_hook(note).remove)
            logits = self.logits(x).shape
        for site in sites:
            if site not in shapes:
                raise ValueError(
                    f"the forward pass does not reach layer {site.layer}, {site.part}: choose another site"
                )
        return shapes, logits

    def head_neurons(self, heads: int | Sequence[int]) -> np.ndarray:
        """Return the neurons of the part `heads` that belong to the given attention heads, numbered from 0."""
        n_heads = self.architecture.n_heads
        for head in np.atleast_1d(heads):
            if not 0 <= head < n_heads:
                raise ValueError(f"head {head} out of range: each layer has 0–{n_heads - 1}")
        neurons_by_head = np.arange(self.architecture.width("heads")).reshape(n_heads, -1)
        return neurons_by_head[np.atleast_1d(heads)].ravel()

    def frames_between(self, start: float, stop: float) -> np.ndarray:
        """Return the frames whose centres lie in the interval from `start` to before `stop` in seconds."""
        frames = np.arange(int(np.ceil(max(stop, 0) / self.frame_seconds)) + 1)
        times = audio.frame_times(len(frames), self.sample_rate, hop=self.hop, span=self.span)
        return frames[(times >= start) & (times < stop)]

    def _check_part(self, part):
        """Raise ValueError if the architecture has no such part."""
        if part not in self.architecture.parts:
            raise ValueError(f"unknown part {part!r}: the parts are {', '.join(self.architecture.parts)}")

    def check(self, site: SiteLike, neuron: int | Sequence[int] | None = None) -> Site:
        """Return the `Site` of a `Site`, (layer, part), a layer or a module's path.

        Raises ValueError if the site or a neuron does not exist.
        """
        if isinstance(site, str):
            site = Site(site, "module")
        elif isinstance(site, (int, np.integer)):
            site = Site(site)
        else:
            site = Site(*site)
        if site.part == "module":
            self._check_path(site.layer)
        else:
            self._check_part(site.part)
            self._check_layer(site)
        if neuron is not None:
            self._check_neuron(site, neuron)
        return site

    def _check_path(self, path):
        """Raise ValueError if the network has no module of that path."""
        paths = [known for known, _ in self.network.named_modules() if known]
        if path not in paths:
            similar = get_close_matches(str(path), paths, cutoff=0.3) or paths[:3]
            raise ValueError(
                f"there is no module {path!r}: there are {', '.join(similar)} …, and the parts "
                f"{', '.join(self.architecture.parts)}"
            )

    def _check_layer(self, site):
        """Raise ValueError if the model does not have the layer, or the layer not the part."""
        if not isinstance(site.layer, (int, np.integer)) or isinstance(site.layer, bool):
            raise ValueError(f"layer must be an integer, not {site.layer!r}")
        if not 0 <= site.layer <= self.n_layers:
            raise ValueError(f"layer {site.layer} out of range: this model has 0–{self.n_layers}")
        if not self.architecture.has(site):
            layer_name = "layer 0 is the input of the first layer: it" if site.layer == 0 else f"layer {site.layer}"
            parts = [part for part in self.architecture.parts if self.architecture.has(Site(site.layer, part))]
            raise ValueError(f"{layer_name} has no {site.part}, only {', '.join(parts)}")

    def _check_neuron(self, site, neuron):
        """Raise ValueError if the site does not have the neuron, or one of several."""
        last = self.n_neurons(site) - 1
        for index in np.atleast_1d(neuron):
            if not 0 <= index <= last:
                raise ValueError(f"neuron {index} out of range: {site.part} has 0–{last}")

    def target(self, name: str | int) -> int:
        """Return the index of a class given by name or index; raise ValueError with the labels if it is neither."""
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool) and 0 <= name < len(self.labels):
            return int(name)
        if name not in self.labels:
            raise ValueError(f"unknown label {name!r}: this model has {', '.join(self.labels)}")
        return self.labels.index(name)

    def require_trained(self) -> None:
        """Raise UntrainedHead, which says how to get a trained head, if this one was never trained."""
        if self.trained is None:
            raise UntrainedHead(
                f"the head of {self.name} is not in its checkpoint, so its outputs are random: fit one with "
                "heads.fit(model, clips, folder) and load that folder, or pass your own to models.load(…, head=…)"
            )

    def require_unedited(self) -> None:
        """Raise ValueError inside `hooks.edit`, or while attention heads are hooked: such changes are not recorded."""
        if self.edited or self.architecture.has_hooked_heads:
            raise ValueError("the model is edited, which cannot be pickled or cached: leave `with hooks.edit(…)` first")

    def tensor(self, waveform: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return a waveform [time] as float32 [1, time] on the device; raise ValueError if too short or not finite."""
        samples = torch.as_tensor(waveform, dtype=torch.float32, device=self.device)
        if samples.ndim == 2 and len(samples) == 1:
            samples = samples[0]
        if samples.ndim != 1:
            raise ValueError(f"a waveform is one-dimensional, [time]; this one has the shape {tuple(samples.shape)}")
        if len(samples) < self.span:
            raise ValueError(f"{len(samples)} samples are too short: one frame of this model needs {self.span}")
        if not torch.isfinite(samples).all():
            raise ValueError("the waveform holds NaN or infinite samples")
        return samples[None]

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Convert raw waveforms [batch, time] to the network's input as its feature extractor does, differentiably.

        Raises ValueError if the network is in training mode, in which forward passes are random.
        """
        self._require_eval()
        return self.architecture.prepare(x, self.preprocessor)

    def _require_eval(self) -> None:
        """Raise ValueError if a module is in training mode."""
        parts = [*self.network.modules()]
        if self.head is not None:
            parts += self.head.modules()
        if any(part.training for part in parts):
            raise ValueError(
                "the network is in training mode, in which dropout makes outputs random: call model.network.eval()"
            )

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits [batch, label] of raw waveforms [batch, time], differentiably.

        Clips of unequal length must not share a batch: padding changes the activations of `base` models.
        """
        if self.head is None:
            return self.architecture.logits(self.prepare(x))
        return self.classify(self.network(self.prepare(x)).last_hidden_state)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the scores [batch, label] that transformers' pipeline returns for logits [batch, label].

        They are probabilities of exclusive labels; a probability of each label, where a clip can have several; or, for
        a regression, the logits unchanged.
        """
        if self.outputs == "one label":
            return torch.softmax(logits, dim=-1)
        return torch.sigmoid(logits) if self.outputs == "several labels" else logits

    def _label(self, scores) -> str | None:
        """Return the label, or labels, of a clip with these scores [label]; None if none applies."""
        if self.outputs == "several labels":
            return ", ".join(name for name, score in zip(self.labels, scores) if score > 0.5) or None
        return self.labels[int(np.argmax(scores))]

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the head to its input [batch, frame, neuron]: logits [batch, label]."""
        if self.head is None:
            return self.architecture.classify(hidden)
        logits = self.head(hidden)
        return logits.mean(dim=1) if logits.ndim == 3 else logits

    def __call__(self, clips, sample_rate: int | None = None) -> torch.Tensor:
        """Compute logits [clip, label] of waveforms, with `sample_rate`, or of other input of `corpora.as_clips`.

        Raises BadClip, which names the clip, if one cannot be used, and UntrainedHead if the head was never trained.
        """
        self.require_trained()
        rows = [self.logits(self.tensor(waveform)) for _, waveform in self.stream(as_clips(clips, sample_rate))]
        return torch.cat(rows)

    @torch.no_grad()
    def predict(self, clips, sample_rate: int | None = None) -> pd.DataFrame:
        """Return label and probabilities of each clip: of a path, a waveform, or other input of `corpora.as_clips`.

        The result is indexed like `clips` and has the column `label` and one column per label, with its `scores`. Where
        a clip can have several labels, `label` names those with a probability above 0.5; where outputs are numbers
        there is no such column. Clips that could not be used are NaN; they are named with the reason in a warning and
        in `attrs["skipped"]`. So are recordings that are too long for one forward pass: `over_time` takes them.

        Examples
        --------
        >>> from xai_lib import corpora, models
        >>> clips = corpora.load("sample").query("speaker == 'sample-21'")
        >>> models.load("pocket").predict(clips.head(2))[["label"]]
               label
        600  disgust
        601  neutral
        """
        self.require_trained()
        clips = as_clips(clips, sample_rate)
        skipped = {}
        rows = {}
        for index, waveform in self.stream(clips, skipped):
            scores = self.scores(self.logits(self.tensor(waveform)))[0].tolist()
            if not np.isfinite(scores).all():
                raise ValueError(
                    f"{self.name} returned {scores[0]} for {index!r}: some of its weights are NaN or infinite"
                )
            rows[index] = scores
        table = pd.DataFrame.from_dict(rows, orient="index", columns=self.labels)
        if self.outputs != "numbers":
            table.insert(0, "label", [self._label(row) for row in table.to_numpy()])
        table = table.reindex(clips.index)
        if "label" in table:
            table["label"] = table["label"].astype(object).where(table["label"].notna(), None)
        table.attrs["skipped"] = skipped
        return table

    def over_time(
        self,
        recordings,
        sample_rate: int | None = None,
        *,
        window: float | None = None,
        step: float = 1.0,
        batch: int = 8,
    ) -> xr.Dataset:
        """Compute probabilities through a long recording, in overlapping windows: `windows.over_time`.

        The default window is 4 s, or `max_seconds` if that is less. `plots.over_time` draws the result.
        """
        if window is None:
            window = min(4.0, self.max_seconds)
        return windows.over_time(self, recordings, sample_rate, window=window, step=step, batch=batch)

    def _check_head(self):
        """Raise ValueError if a user's head does not fit the encoder and the labels."""
        width = self.architecture.width("hidden_state")
        n_labels = len(self.labels)
        try:
            with torch.no_grad():
                shape = tuple(self.classify(torch.zeros(1, 4, width, device=self.device)).shape)
        except RuntimeError as error:
            expected = f"the head does not take [batch, frame, {width}], the encoder's last layer"
            raise ValueError(f"{expected}: {error}") from error
        if shape != (1, n_labels):
            raise ValueError(
                f"the head returns {shape} for one clip, but there are {n_labels} labels: expected {(1, n_labels)}"
            )


def require_model(model: Model) -> None:
    """Raise ValueError for what is no `Model`, and does not act as one either, such as the name of a model."""
    if isinstance(model, str):
        raise ValueError(f"model must be an opened model, not its name {model!r}: pass models.load({model!r})")
    if not hasattr(model, "require_trained"):
        raise ValueError(
            f"model must be an opened model, not a {type(model).__name__}: pass what models.load returns, as the first "
            "argument"
        )


def _unpickled(kind, config, state, attributes):
    """Return the Model that `Model.__reduce__` took apart."""
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn at random, and replaced
        network = kind(config)
    model = Model.__new__(Model)
    network.load_state_dict(state)
    model.network = network.eval().requires_grad_(False).to(attributes["device"])
    model.architecture = ARCHITECTURES[config.model_type](network)
    vars(model).update(attributes)
    return model
