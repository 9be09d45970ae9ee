"""An audio classifier that was opened: raw waveform in, logits and every layer out."""

from __future__ import annotations

import copyreg
from contextlib import ExitStack
from difflib import get_close_matches

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import audio
from ..corpora import as_clips
from . import windows
from .architectures import FAMILIES
from .sites import PassedSites, Site

OUTPUTS = {"multi_label_classification": "several labels", "regression": "numbers"}  # by transformers' problem_type
LONGEST_SECONDS = 60  # of a clip that is heard in one piece: memory grows with the square of it


class UntrainedHead(ValueError):
    """The head was never trained, so there is nothing to explain."""


class Model:
    """An audio classifier, opened layer by layer; float32, in eval mode, its weights without gradients.

    Attributes
    ----------
    network : torch.nn.Module
        The Hugging Face module.
    labels : list of str
    sample_rate : int
        Hz.
    n_layers : int
        L; layers are 0 (what enters the first) to L.
    outputs : {"one label", "several labels", "numbers"}
        What the logits are: of one label of several (softmax), of labels each by itself (sigmoid), or numbers of a
        regression; as the checkpoint's `problem_type` says.
    trained : str or None
        Why the head counts as trained.
    trained_on, head_trained_on, chosen_on : list of str or None
        Speakers on whom the encoder and a head fitted later were trained, and on whom the weights were chosen, if
        recorded.
    trained_recordings : DataFrame or None
        `fingerprint`, `use` ("trained", "chosen" or "head") and `speaker` of the recordings on which it was trained, if
        recorded (`fingerprints.read`).
    hop, span : int
        Samples between frames, and seen by one frame of the front end.
    longest_seconds : float
        The longest clip that is heard in one piece; longer ones are skipped by name, and `over_time` takes them. It can be
        set where the family has no window of its own and memory suffices.
    """

    def __init__(self, network, *, labels, name, trained, preprocessor, device, head=None, family=None):
        self.network = network.eval().requires_grad_(False).to(device)
        self.family = family or FAMILIES[network.config.model_type](network)
        self.head = head if head is None else head.eval().requires_grad_(False).to(device)
        self.labels, self.name, self.trained, self.device = labels, name, trained, device
        problem = getattr(getattr(network, "config", None), "problem_type", None)
        self.outputs = OUTPUTS.get(problem, "one label") if head is None else "one label"
        self.edited = 0  # `hooks.edit` in force
        self._widths = {}  # of modules that were asked for by path
        for heard in ("trained_on", "head_trained_on", "chosen_on"):
            setattr(self, heard, getattr(getattr(network, "config", None), f"xai_{heard}", None))
        self.trained_recordings = None
        self.preprocessor, self.sample_rate = preprocessor, preprocessor.get("sampling_rate", 16_000)
        self.n_layers, self.span = len(self.family.layers), self.family.span
        self.longest_seconds = min(LONGEST_SECONDS, self.family.window or LONGEST_SECONDS)
        if head is not None:
            self._check_head()

    def __reduce__(self):
        """For other processes: a network whose convolution is parametrised cannot be pickled as it is."""
        self.require_unedited()
        known = {name: x for name, x in vars(self).items() if name not in ("network", "family")}
        if not self.family.resumable:
            return copyreg.__newobj__, (Model,), vars(self)
        return _unpickled, (type(self.network), self.network.config, self.network.state_dict(), known)

    def __repr__(self):
        kind = type(self.family).__name__
        return f"<{self.name}: {kind}, layers 0–{self.n_layers}, {', '.join(self.labels) or 'no labels'}>"

    @property
    def hop(self) -> int:
        """Samples between frames; ValueError where frames do not follow one another."""
        return self.family.hop

    @property
    def frame_seconds(self) -> float:
        """Time from one frame to the next."""
        return self.hop / self.sample_rate

    def n_frames(self, n_samples: int) -> int:
        """Frames that a waveform of `n_samples` gives."""
        return self.family.n_frames(n_samples)

    def times(self, waveform, n=None) -> np.ndarray:
        """Centre of each frame in seconds, NaN of class tokens; of a wrapped module tell how many, `n`."""
        return self._places(waveform, n)[0]

    def heard(self, waveform, n=None) -> np.ndarray:
        """Which frames lie in the clip, bool [frame]: neither class tokens nor what an extractor padded."""
        return self._places(waveform, n)[1]

    def _places(self, waveform, n):
        more = () if n is None or self.family.resumable else (n,)
        return self.family.places(np.shape(waveform)[-1], self.sample_rate, *more)

    def stream(self, clips, skipped=None):
        """`audio.stream` at the model's rate, of clips of one frame or more, and not longer than can be heard at once."""
        options = {"shortest": self.span, "longest": self.longest_seconds * self.sample_rate, "skipped": skipped}
        return audio.stream(clips, self.sample_rate, **options)

    def speech(self, waveform, n=None) -> np.ndarray:
        """Which of the model's frames hold speech, bool [frame]: `audio.speech_mask` where they are centred."""
        at, heard = self._places(waveform, n)
        grid = audio.grid(self.sample_rate)
        if self.family.timeline:
            return audio.speech_mask(waveform, self.sample_rate, hop=self.hop, span=self.span)
        mask = audio.speech_mask(waveform, self.sample_rate)
        nearest = np.round((np.nan_to_num(at) * self.sample_rate - grid["span"] / 2) / grid["hop"]).astype(int)
        return heard & mask[np.clip(nearest, 0, len(mask) - 1)]

    def sites(self, part="block", layers="all") -> list[Site]:
        """Sites of a part or several, from the lowest layer up; `layers` is "all", an int or a sequence of int."""
        parts = (part,) if isinstance(part, str) else part
        if isinstance(layers, str) and layers == "all":
            for name in parts:
                self._known(name)
            every = [Site(layer, part) for layer in range(self.n_layers + 1) for part in parts]
            return [site for site in every if self.family.has(site)]
        sites = sorted({self.check((layer, part)) for layer in np.atleast_1d(layers).tolist() for part in parts})
        if not sites:
            raise ValueError('layers is empty: name at least one, or "all"')
        return sites

    def n_neurons(self, site) -> int:
        """Number of neurons of a site."""
        site = self.check(site)
        if site.part != "module":
            return self.family.width(site.part) if self.family.resumable else self.family.widths[site]
        if site not in self._widths:  # no configuration tells: see a short forward
            seen, _ = self.tried([site], self.noise(1))
            self._widths[site] = seen[site][-1]
        return self._widths[site]

    def noise(self, rows, seconds=None) -> torch.Tensor:
        """Waveforms [batch, time] to try the model with, of a second unless the family takes another length only."""
        n = round((seconds or self.family.seconds or 1) * self.sample_rate)
        return 0.1 * torch.randn(rows, n, generator=torch.Generator().manual_seed(0)).to(self.device)

    @torch.no_grad()
    def tried(self, sites, x) -> tuple[dict, torch.Size]:
        """Shapes {site: [batch, frame, neuron]} and that of the logits, of waveforms; ValueError if a site is not met."""
        shapes = {}
        passed = PassedSites()
        with ExitStack() as stack:
            passed.watch(self.network, stack)
            for site in sites:

                def note(module, args, output, site=site):
                    passed.note(site)
                    shapes[site] = self.family.seen(site, output[0] if isinstance(output, tuple) else output).shape

                module = stack.enter_context(self.family.opened(site))
                stack.callback(module.register_forward_hook(note).remove)
            logits = self.logits(x).shape
        for site in sites:
            if site not in shapes:
                raise ValueError(f"no forward passes through layer {site.layer}, {site.part}")
        return shapes, logits

    def head_neurons(self, heads) -> np.ndarray:
        """Neurons of the part `heads` that belong to some attention heads, numbers from 0."""
        n, width = self.family.n_heads, self.family.width("heads")
        wrong = [head for head in np.atleast_1d(heads) if not 0 <= head < n]
        if wrong:
            raise ValueError(f"head {wrong[0]} out of range: each layer has 0–{n - 1}")
        return np.arange(width).reshape(n, -1)[np.atleast_1d(heads)].ravel()

    def between(self, start, stop) -> np.ndarray:
        """Frames whose centres lie in a stretch of time, from `start` to before `stop` in seconds."""
        frames = np.arange(int(np.ceil(max(stop, 0) / self.frame_seconds)) + 1)
        at = audio.frame_times(len(frames), self.sample_rate, hop=self.hop, span=self.span)
        return frames[(at >= start) & (at < stop)]

    def _known(self, part):
        if part not in self.family.parts:
            raise ValueError(f"unknown part {part!r}: the parts are {', '.join(self.family.parts)}")

    def check(self, site, neuron=None) -> Site:
        """The site, given as `Site`, (layer, part), a layer or a module's path; ValueError if it, or a neuron, is not there."""
        site = Site(site, "module") if isinstance(site, str) else site
        site = Site(site) if isinstance(site, (int, np.integer)) else Site(*site)
        if site.part == "module":
            paths = [path for path, _ in self.network.named_modules() if path]
            if site.layer not in paths:
                near = get_close_matches(str(site.layer), paths, cutoff=0.3) or paths[:3]
                raise ValueError(f"there is no module {site.layer!r}: there are {', '.join(near)} …")
            return self._checked(site, neuron)
        self._known(site.part)
        if not isinstance(site.layer, (int, np.integer)) or isinstance(site.layer, bool):
            raise ValueError(f"layer must be a whole number, not {site.layer!r}")
        if not 0 <= site.layer <= self.n_layers:
            raise ValueError(f"layer {site.layer} out of range: this model has 0–{self.n_layers}")
        if not self.family.has(site):
            only = "layer 0 is what enters the first layer: it" if site.layer == 0 else f"layer {site.layer}"
            raise ValueError(
                f"{only} has no {site.part}, only {', '.join(p for p in self.family.parts if self.family.has(Site(site.layer, p)))}"
            )
        return self._checked(site, neuron)

    def _checked(self, site, neuron):
        """The site, if it has these neurons."""
        if neuron is not None:
            last = self.n_neurons(site) - 1
            wrong = [n for n in np.atleast_1d(neuron) if not 0 <= n <= last]
            if wrong:
                raise ValueError(f"neuron {wrong[0]} out of range: {site.part} has 0–{last}")
        return site

    def target(self, name) -> int:
        """Index of a class, given by name or index; a ValueError lists the labels where it is neither."""
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool) and 0 <= name < len(self.labels):
            return int(name)
        if name not in self.labels:
            raise ValueError(f"unknown emotion {name!r}: this model knows {', '.join(self.labels)}")
        return self.labels.index(name)

    def require_trained(self) -> None:
        """Raise UntrainedHead, which says how to get a trained one, if this head was never trained."""
        if self.trained is None:
            raise UntrainedHead(
                f"the head of {self.name} is not in its checkpoint, so its outputs are random: fit one with "
                "heads.fit(model, clips, folder) and load that folder, or attach your own with models.load(…, head=…)"
            )

    def require_unedited(self) -> None:
        """Raise ValueError inside of `hooks.edit`, or of heads that are open: what is in force there is not told."""
        if self.edited or self.family.is_open:
            raise ValueError("the model is edited, which cannot be sent or kept: leave `with hooks.edit(…)` first")

    def tensor(self, waveform) -> torch.Tensor:
        """A waveform [time] as float32 [1, time] on the model's device; ValueError if it is too short or holds NaN."""
        x = torch.as_tensor(waveform, dtype=torch.float32, device=self.device)
        if x.ndim == 2 and len(x) == 1:
            x = x[0]
        if x.ndim != 1:
            raise ValueError(f"a waveform is one-dimensional, [time]; this one has the shape {tuple(x.shape)}")
        if len(x) < self.span:
            raise ValueError(f"{len(x)} samples are too short: one frame of this model needs {self.span}")
        if not torch.isfinite(x).all():
            raise ValueError("the waveform holds NaN or infinite samples")
        return x[None]

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Raw waveforms [batch, time] as the network wants them: what its feature extractor does, in the graph.

        ValueError where the network was put into training mode, in which every forward is another.
        """
        self._require_eval()
        return self.family.prepare(x, self.preprocessor)

    def _require_eval(self) -> None:
        """Raise ValueError where some module is in training mode."""
        modules = [self.network, *([] if self.head is None else [self.head])]
        if any(part.training for module in modules for part in module.modules()):
            raise ValueError(
                "the network is in training mode, in which dropout makes every forward another: call model.network.eval()"
            )

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Raw waveforms [batch, time] to logits [batch, label], differentiable.

        Clips of unequal length must not share a batch: padding changes the activations of `base` models.
        """
        if self.head is None:
            return self.family.logits(self.prepare(x))
        return self.classify(self.network(self.prepare(x)).last_hidden_state)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """What transformers' pipeline gives [batch, label] for logits [batch, label].

        Probabilities of one label of several; a probability of each, where a clip can have several; or, of a regression,
        the numbers as they are.
        """
        if self.outputs == "one label":
            return torch.softmax(logits, dim=-1)
        return torch.sigmoid(logits) if self.outputs == "several labels" else logits

    def _label(self, scores) -> str | None:
        """The label, or labels, of a clip with these scores [label]."""
        if self.outputs == "several labels":
            return ", ".join(name for name, score in zip(self.labels, scores) if score > 0.5) or None
        return self.labels[int(np.argmax(scores))]

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the head makes of its input [batch, frame, neuron]: logits [batch, label]."""
        if self.head is None:
            return self.family.classify(hidden)
        logits = self.head(hidden)
        return logits.mean(dim=1) if logits.ndim == 3 else logits

    def __call__(self, clips, sample_rate=None) -> torch.Tensor:
        """Logits [clip, label] of waveforms, with `sample_rate`, or of anything else that `corpora.as_clips` takes.

        BadClip, which names it, where a clip cannot be used; UntrainedHead where the head was never trained.
        """
        self.require_trained()
        rows = [self.logits(self.tensor(waveform)) for _, waveform in self.stream(as_clips(clips, sample_rate))]
        return torch.cat(rows)

    @torch.no_grad()
    def predict(self, clips, sample_rate=None) -> pd.DataFrame:
        """Label and probabilities of each clip: of a path, a waveform, or anything that `corpora.as_clips` takes.

        The result is indexed like `clips`: `label` and one column per label, `scores`. Where a clip can have several
        labels, `label` names those of a probability above 0.5; where outputs are numbers there is no such column. Clips
        that could not be used hold NaN; they are named with the reason in a warning and in `attrs["skipped"]`. So is a
        recording that is too long to be heard in one piece: `over_time` takes it.
        """
        self.require_trained()
        clips = as_clips(clips, sample_rate)
        skipped, rows = {}, {}
        for index, waveform in self.stream(clips, skipped):
            rows[index] = self.scores(self.logits(self.tensor(waveform)))[0].tolist()
            if not np.isfinite(rows[index]).all():
                raise ValueError(
                    f"{self.name} gives {rows[index][0]} for {index!r}: some of its weights are not numbers"
                )
        table = pd.DataFrame.from_dict(rows, orient="index", columns=self.labels)
        if self.outputs != "numbers":
            table.insert(0, "label", [self._label(row) for row in table.to_numpy()])
        table = table.reindex(clips.index)
        if "label" in table:
            table["label"] = table["label"].astype(object).where(table["label"].notna(), None)
        table.attrs["skipped"] = skipped
        return table

    def over_time(self, recordings, sample_rate=None, *, window=None, step=1.0, batch=8) -> xr.Dataset:
        """Probabilities through a long recording, in windows that overlap: `windows.over_time`.

        The window is of 4 s by default, or what the model hears in one piece where that is less. The figure of the result
        is `plots.over_time`.
        """
        window = min(4.0, self.longest_seconds) if window is None else window
        return windows.over_time(self, recordings, sample_rate, window=window, step=step, batch=batch)

    def _check_head(self):
        """A user's head must fit the encoder and the labels."""
        width, n = self.family.width("block"), len(self.labels)
        try:
            with torch.no_grad():
                given = tuple(self.classify(torch.zeros(1, 4, width, device=self.device)).shape)
        except RuntimeError as error:
            taken = f"the head does not take [batch, frame, {width}], the encoder's last layer"
            raise ValueError(f"{taken}: {error}") from error
        if given != (1, n):
            raise ValueError(f"the head gives {given} for one clip and {n} labels were named: it should give {(1, n)}")


def _unpickled(kind, config, state, known):
    """The Model again."""
    with torch.random.fork_rng(devices=[]):  # weights that are drawn, and replaced
        model, network = Model.__new__(Model), kind(config)
    network.load_state_dict(state)
    model.network = network.eval().requires_grad_(False).to(known["device"])
    model.family = FAMILIES[config.model_type](network)
    vars(model).update(known)
    return model
