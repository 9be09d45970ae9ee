"""GradientSHAP on the waveform: attribution of a class to the frames of a clip and to neurons."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.stats import spearmanr

from .. import audio, execution, hooks, results, targets
from ..activations import require_named_frames, usable
from ..checks import require_whole_number
from ..corpora import as_clips
from ..models import require_model

if TYPE_CHECKING:
    from ..models import Model

REDUCE = ("mean", "sum", "max", "none")
_PREDICTION = ("target", "target_probability", "predicted", "probability")  # coordinates of each clip


def gradient_shap(
    model: Model,
    clips,
    *,
    target: str | int | Sequence[str | int],
    baseline="noise",
    n: int = 64,
    steps: int = 8,
    window: float = 0.02,
    reduce: str = "mean",
    layers: str | int | Sequence[int] | None = None,
    part: str = "hidden_state",
    frames: str = "all",
    scale: str = "logit",
    seed: int = 0,
    batch: int = 16,
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Attribute a class to the frames of each clip and, from the same passes, to the neurons of the layers.

    (x − b) · gradient at b + α (x − b), summed over the samples of each window and averaged over `n` draws. A baseline
    b is drawn anew for each of the n / steps paths; draw j of a path takes its α uniformly from j/steps to (j +
    1)/steps: as unbiased as α from 0 to 1, with less variance. A neuron gets, along each path from b to x, gradient ×
    change of its activation between neighbouring α (with the mean of the gradients at both; before the first draw and
    after the last with that draw's own).

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    target, scale
        As in `attribution.grad_x_activation`.
    baseline : str, or clips as in `corpora.as_clips`
        "noise" with the clip's mean and SD, "silence", or clips, of which each path takes one at random (from a random
        sample on, repeated where too short).
    n, steps : int
        Draws in all, and on each path: n is a multiple of steps, twice or more.
    window : float
        Seconds; 0.02 gives the encoder's frames: frame i is the samples from i hops on, one hop long. The last one
        takes the remaining samples. Longer windows are segments.
    reduce : {"mean", "sum", "max", "none"}
        How the draws of a frame are combined. The maximum is biased upwards, the more so the more draws; "none" keeps
        them in a dim `draw`, with the coordinates `alpha` and `path`. Neurons are always means over paths.
    layers, part, frames
        Of the neurons, as in `attribution.grad_x_activation`; layers=None: frames only.
    batch : int
        Draws that share a pass. Clips never do, so nothing is padded.

    Returns
    -------
    Dataset
        [clip, frame], NaN beyond a clip's own `n_frames`: `attribution` and its standard error over paths, `error`, in
        units of the scale (of the mean or the sum, else NaN); `level` (dBFS) and `speech` (share of the window) of the
        same windows. Per clip: `residual`, the sum of the mean attributions minus (f(x) − mean f(b)), which is 0 if
        they account for all of it, and its `residual_error` over paths. Coordinates: `seconds` (start of a frame);
        `value` (f(x)), `target`, `target_probability`, `predicted`, `probability`.

        With layers, `signed` and `absolute` [clip, layer, neuron]: sums over frames of the mean over paths and of its
        absolute value; `neuron_residual` [clip, layer]: the sum of the signed ones over all frames minus
        (f(x) − mean f(b)). It tends to 0 with more steps for blocks, through which all passes; not for other parts, nor
        where the head reads a weighted sum of the layers.

    Raises
    ------
    UntrainedHead, ValueError
        A random head; an unknown option; n and steps that do not fit; no usable clip.

    References
    ----------
    Lundberg and Lee (2017), A unified approach to interpreting model predictions; Erion et al. (2021), expected
    gradients. Frames equal captum.attr.GradientShap under the same draws. Neurons: conductance, Dhamdhere et al.
    (2019), How important is a neuron?

    Examples
    --------
    >>> from xai_lib import attribution, corpora, models
    >>> clips = corpora.load("sample")
    >>> neutral = clips.query("label == 'neutral'").head(2)
    >>> angry = clips.query("label == 'angry'").head(1)
    >>> shap = attribution.gradient_shap(models.load("pocket"), angry, target="angry", baseline=neutral, n=16)
    >>> dict(shap.sizes)
    {'clip': 1, 'frame': 82}
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    targets.check(model, target, scale)
    if isinstance(baseline, str) and baseline not in ("noise", "silence"):
        raise ValueError(f'unknown baseline {baseline!r}: use "noise", "silence" or clips')
    if not isinstance(baseline, str):
        baseline = as_clips(baseline, sample_rate)
    if reduce not in REDUCE:
        raise ValueError(f"unknown reduce {reduce!r}: use {', '.join(REDUCE)}")
    require_whole_number("n", n)
    require_whole_number("steps", steps)
    if n < 2 * steps or n % steps:
        reason = "the standard error is over paths of `steps` draws each"
        raise ValueError(f"n must be a multiple of steps, twice or more ({reason}), not n={n} with steps={steps}")
    require_named_frames(frames)
    sites = [] if layers is None else model.sites(part, layers)
    skipped = {}
    rows = {}
    for index, waveform, frame_mask in usable(model, clips, frames, skipped):
        width, count = windows(model, len(waveform), window)
        key = targets.key(seed, index, targets.SEED_GRADIENT_SHAP)
        draw = partial(draws, steps=steps, baseline=baseline, key=key, rate=model.sample_rate)
        integrator = _PathIntegrator(model, model.tensor(waveform)[0], draw, target, scale, sites, steps)
        attribution = _attribute_clip(integrator, n, batch, width, count)
        rows[index] = {
            **_frame_scores(attribution, steps, reduce),
            **_level_and_speech(model, waveform, width, count),
            **_residual_of_frames(attribution, steps),
            **_neuron_scores(attribution, frame_mask),
            **attribution.prediction,
            "n_frames": count,
        }

    attrs = {"method": "gradient_shap", "scale": scale, "n": n, "steps": steps, "seed": seed, "reduce": reduce}
    attrs["window"] = round(window * model.sample_rate) / model.sample_rate
    attrs["baseline"] = baseline if isinstance(baseline, str) else "clips"
    if sites:
        attrs["part"] = part
        attrs["frames"] = frames
    return _dataset(clips, rows, sites, steps, results.attributes(model, skipped, **attrs))


@dataclass(frozen=True)
class _ClipAttribution:
    """Attribution of the class of one clip.

    Attributes
    ----------
    alphas : array [draw]
    windows : array [draw, window]
        Attributions of the windows, in units of the scale.
    path_changes : array [path]
        f(x) − f(b).
    neurons : array [layer, frame, neuron] or None
        Attributions of neurons, means over paths; None without layers.
    prediction : dict
        `value` (f(x)) and the coordinates of _PREDICTION.
    """

    alphas: np.ndarray
    windows: np.ndarray
    path_changes: np.ndarray
    neurons: np.ndarray | None
    prediction: dict

    def path_means(self, steps):
        """Return the mean attribution of each window over the draws of each path, [path, window]."""
        return self.windows.reshape(-1, steps, self.windows.shape[1]).mean(axis=1)


def _attribute_clip(integrator, n, batch, width, count) -> _ClipAttribution:
    """Attribute the class of one clip to `count` windows of `width` samples, and to neurons, by `n` draws."""
    alphas = []
    window_scores = []
    start_values = []
    for step in execution.in_batches(integrator.step, n, batch):
        alphas.append(step.alphas)
        window_scores.append(_summed(step.samples, width, count))
        start_values.append(step.start_values)

    value = integrator.value.item()
    neurons = None
    if integrator.sites:
        n_paths = n // integrator.steps
        totals = torch.stack(list(integrator.conductance.values()))
        neurons = (totals / n_paths).cpu().double().numpy()
    return _ClipAttribution(
        alphas=_concatenate(alphas),
        windows=_concatenate(window_scores),
        path_changes=value - _concatenate(start_values),
        neurons=neurons,
        prediction={"value": value, **_prediction(integrator)},
    )


def _concatenate(tensors):
    """Concatenate tensors of batches to one array of double precision."""
    return torch.cat(tensors).cpu().double().numpy()


def _prediction(integrator):
    """Return the coordinates of _PREDICTION."""
    model = integrator.model
    scores = model.scores(integrator.logits)[0].cpu().numpy()
    return {
        "target": targets.name(model, integrator.classes),
        "target_probability": scores[integrator.classes[0]],
        "predicted": model.labels[scores.argmax()],
        "probability": scores.max(),
    }


@dataclass(frozen=True)
class _Step:
    """Draws that were attributed together.

    Attributes
    ----------
    alphas : tensor [draw]
    samples : tensor [draw, time]
        Attributions of the samples.
    start_values : tensor [path]
        f(b) of the paths that begin with one of these draws.
    """

    alphas: torch.Tensor
    samples: torch.Tensor
    start_values: torch.Tensor


@dataclass(frozen=True)
class _Draw:
    """One draw at one site: hidden state and its gradient, [1, frame, neuron]."""

    hidden: torch.Tensor
    gradient: torch.Tensor


class _PathIntegrator:
    """Gradients of the target along paths from baselines to one clip, a batch of draws at a time.

    The draws are numbered along the first path, then the second, and so on. A batch may end inside a path, so the last
    draw of each is kept: the change of a neuron is that between neighbouring draws.

    Attributes
    ----------
    logits : tensor [1, label]
    classes : tuple of int
    value : tensor []
        Of the clip itself, which ends all paths.
    conductance : dict
        {site: sums of gradient × change over the draws so far, [frame, neuron]}.
    """

    def __init__(self, model, x, draw, target, scale, sites, steps):
        self.model = model
        self.x = x
        self.draw = draw
        self.scale = scale
        self.sites = sites
        self.steps = steps
        with torch.no_grad():
            self.logits, self.ends = self._forward(x[None])
        self.classes = targets.resolve(model, target, self.logits)
        self.value = self._value(self.logits)
        self.conductance = dict.fromkeys(sites, 0)
        # The first draw begins a path and has none before it: any values do.
        self.last_draws = {site: _Draw(end, end) for site, end in self.ends.items()}

    def step(self, indices) -> _Step:
        """Attribute the draws of these numbers, which follow on those of the step before."""
        alphas, baselines = self.draw(self.x, indices)
        first_rows = [row for row, index in enumerate(indices) if index % self.steps == 0]  # of a path each
        last_rows = [row for row, index in enumerate(indices) if index % self.steps == self.steps - 1]
        start_logits, starts = self._forward_baselines(baselines[first_rows])

        points = (baselines + alphas[:, None] * (self.x - baselines)).requires_grad_()
        with torch.enable_grad():
            # Of a clone: torch's counter of FLOPs fails where the input of a module is a leaf.
            logits, hidden = self._forward(points.clone())
            total = self._value(logits).sum()
            point_gradient, *gradients = torch.autograd.grad(total, [points, *hidden.values()])

        conductance = {}
        last_draws = {}
        for site, gradient in zip(self.sites, gradients):
            site_hidden = hidden[site].detach()
            conductance[site] = self.conductance[site] + _conductance(
                site_hidden, gradient, starts[site], self.ends[site], self.last_draws[site], first_rows, last_rows
            )
            last_draws[site] = _Draw(site_hidden[-1:].clone(), gradient[-1:].clone())
        step = _Step(alphas, (self.x - baselines) * point_gradient, self._value(start_logits))

        # Last of all: a batch that memory does not suffice for is tried again in parts, from what was before it.
        self.conductance = conductance
        self.last_draws = last_draws
        return step

    def _forward(self, waves):
        """Return logits [row, label], and {site: hidden state [row, frame, neuron]}."""
        with hooks.capture(self.model, self.sites) as captured:
            logits = self.model.logits(waves)
        return logits, {site: captured[site] for site in self.sites}

    @torch.no_grad()
    def _forward_baselines(self, baselines):
        """Return what `_forward` does, also where no path begins in a batch."""
        if len(baselines) == 0:
            return self.logits[:0], {site: end[:0] for site, end in self.ends.items()}
        return self._forward(baselines)

    def _value(self, logits):
        """Return the value of the target, [row]."""
        return targets.value(self.model, logits, self.classes, self.scale)


def _conductance(hidden, gradient, starts, end, draw_before, first_rows, last_rows):
    """Return gradient × change of activation, summed over the draws of a batch [frame, neuron].

    The change is that to each draw from the one before it on its path, or from the baseline (`starts`) in the first
    rows of paths; and in the last rows also that to the clip (`end`).
    """
    hidden_before = torch.cat([draw_before.hidden, hidden[:-1]])
    hidden_before[first_rows] = starts
    gradient_before = torch.cat([draw_before.gradient, gradient[:-1]])
    gradient_before[first_rows] = gradient[first_rows]
    mean_gradient = (gradient_before + gradient) / 2

    along_paths = (mean_gradient * (hidden - hidden_before)).sum(dim=0)
    to_clip = (gradient[last_rows] * (end - hidden[last_rows])).sum(dim=0)
    return along_paths + to_clip


def _frame_scores(attribution, steps, reduce):
    """Return `attribution` of the windows, its standard error over paths, `error`, and `alpha` where draws are kept."""
    n = len(attribution.windows)
    path_means = attribution.path_means(steps)
    standard_error = path_means.std(axis=0, ddof=1) / len(path_means) ** 0.5  # of the mean
    undefined = np.full_like(standard_error, np.nan)
    if reduce == "mean":
        return {"attribution": attribution.windows.mean(axis=0), "error": standard_error}
    if reduce == "sum":
        return {"attribution": attribution.windows.sum(axis=0), "error": standard_error * n}
    if reduce == "max":
        return {"attribution": attribution.windows.max(axis=0), "error": undefined}
    return {"attribution": attribution.windows, "error": undefined, "alpha": attribution.alphas}


def _residual_of_frames(attribution, steps):
    """Return how far the mean attributions are from accounting for f(x) − f(b), and the standard error over paths."""
    residuals = attribution.path_means(steps).sum(axis=1) - attribution.path_changes
    return {"residual": residuals.mean(), "residual_error": residuals.std(ddof=1) / len(residuals) ** 0.5}


def _neuron_scores(attribution, frame_mask):
    """Return sums over the frames that count, and the residual of each layer; nothing without layers."""
    if attribution.neurons is None:
        return {}
    counted = attribution.neurons[:, frame_mask]
    return {
        "signed": counted.sum(axis=1),
        "absolute": np.abs(counted).sum(axis=1),
        "neuron_residual": attribution.neurons.sum(axis=(1, 2)) - attribution.path_changes.mean(),
    }


def draws(
    x: torch.Tensor, indices: Sequence[int], *, steps: int, baseline, key: tuple[int, ...], rate: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return α [draw] and baselines [draw, time] of draws, given by number, `steps` a path; independent of batching."""
    paths = {}
    alphas = []
    starts = []
    for index in indices:
        path, step = divmod(index, steps)
        if path not in paths:
            paths[path] = _path(x, steps, baseline, (*key, path), rate)  # the number of a path is part of its seed
        path_alphas, start = paths[path]
        alphas.append(path_alphas[step])
        starts.append(start)
    return torch.tensor(alphas, dtype=x.dtype, device=x.device), torch.stack(starts).to(x.device)


def _path(x, steps, baseline, key, rate):
    """Return α [step] and baseline [time] of one path."""
    rng = np.random.default_rng(key)
    if isinstance(baseline, pd.DataFrame):
        wave = _random_clip(baseline, rng, rate)
        start = np.resize(np.roll(wave, -rng.integers(len(wave))), len(x))
    elif baseline == "noise":
        start = x.mean().item() + x.std(correction=0).item() * rng.standard_normal(len(x))
    else:
        start = np.zeros(len(x))
    alphas = (np.arange(steps) + rng.uniform(size=steps)) / steps
    return alphas, torch.as_tensor(start, dtype=x.dtype)


def _random_clip(baseline, rng, rate) -> np.ndarray:
    """Draw a clip from a table and return its waveform; warn of clips that cannot be used, and draw others."""
    sources = audio.sources(baseline)
    unusable = {}
    while len(unusable) < len(baseline):
        position = int(rng.integers(len(baseline)))
        if position in unusable:
            continue
        try:
            return audio.read(sources.iloc[position], rate)
        except audio.BadClip as error:
            unusable[position] = str(error)
            warnings.warn(f"a clip of the baseline was skipped: {error}", stacklevel=2)
    raise audio.NoClips(unusable)


def frame_table(shap: xr.Dataset) -> pd.DataFrame:
    """Return one row per clip: prediction, completeness, and whether the attribution only follows the energy.

    `speech_time` and `speech_attribution` are the shares of the time, and of the absolute attribution, that lie in
    speech; `level_rho` is the rank correlation of absolute attribution and level (dB) over frames.
    """
    rows = {}
    for clip in shap["clip"].values:
        frames = one_clip(shap, clip)
        magnitude = np.abs(frames["attribution"].values)
        speech = frames["speech"].values
        row = {name: frames[name].item() for name in (*_PREDICTION, "residual", "residual_error")}
        row["speech_time"] = speech.mean()
        row["speech_attribution"] = (magnitude * speech).sum() / magnitude.sum()
        row["level_rho"] = spearmanr(magnitude, frames["level"].values).statistic
        rows[clip] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("clip")


def top_frames(shap: xr.Dataset, k: int) -> pd.DataFrame:
    """Return the `k` frames of each clip with the greatest attribution.

    Columns: `clip`, `frame`, `start`, `stop` (s), `attribution`, `error`.
    """
    tables = []
    for clip in shap["clip"].values:
        frames = one_clip(shap, clip)
        table = frames[["seconds", "attribution", "error"]].to_dataframe().reset_index()
        table = table.nlargest(k, "attribution", keep="first").rename(columns={"seconds": "start"})
        table.insert(2, "stop", table["start"] + shap.attrs["window"])
        tables.append(table[["clip", "frame", "start", "stop", "attribution", "error"]])
    return pd.concat(tables, ignore_index=True)


def windows(model: Model, n_samples: int, seconds: float) -> tuple[int, int]:
    """Return the width in samples and the number of the windows over a clip.

    The last window takes the remaining samples. 0.02 s gives the clip's frames.
    """
    width = round(seconds * model.sample_rate)
    if width < 1:
        raise ValueError(f"a window of {seconds} s is shorter than one sample: use a longer one")
    duration = model.n_frames(n_samples) * model.hop
    count = -(-duration // width)  # rounded up
    return width, count


def _summed(values, width, count):
    """Sum [draw, time] over the samples of each window: [draw, window]."""
    end = count * width
    body = torch.nn.functional.pad(values, (0, max(end - values.shape[1], 0)))[:, :end]
    sums = body.reshape(len(values), count, width).sum(dim=-1)
    sums[:, -1] += values[:, end:].sum(dim=-1)
    return sums


def _level_and_speech(model, waveform, width, count):
    """Compute the level (dBFS) and the share of speech of each window."""
    starts = np.arange(count) * width
    n_samples = np.diff(np.append(starts, len(waveform)))
    power = np.add.reduceat(np.square(waveform, dtype=float), starts) / n_samples
    frame_speech = np.repeat(model.speech(waveform), model.hop).astype(float)
    sample_speech = np.pad(frame_speech, (0, len(waveform) - len(frame_speech)), mode="edge")
    return {"level": 10 * np.log10(power + 1e-12), "speech": np.add.reduceat(sample_speech, starts) / n_samples}


def _dataset(clips, rows, sites, steps, attributes) -> xr.Dataset:
    """Return rows {index: {name: number, text, or array}} as one Dataset."""
    columns = {}
    for name in next(iter(rows.values())):
        columns[name] = [row[name] for row in rows.values()]
    draws_kept = "alpha" in columns
    dims = {
        "attribution": ("clip", "draw", "frame") if draws_kept else ("clip", "frame"),
        "error": ("clip", "frame"),
        "level": ("clip", "frame"),
        "speech": ("clip", "frame"),
        "residual": ("clip",),
        "residual_error": ("clip",),
        "signed": ("clip", "layer", "neuron"),
        "absolute": ("clip", "layer", "neuron"),
        "neuron_residual": ("clip", "layer"),
    }
    variables = {}
    for name in dims:
        if name in columns:
            values = columns[name] if dims[name] == ("clip",) else results.padded(columns[name])
            variables[name] = (dims[name], values)

    clip_coordinates = (*_PREDICTION, "value", "n_frames")
    coords = results.coordinates(clips, rows, **{name: columns[name] for name in clip_coordinates})
    n_frames = max(columns["n_frames"])
    coords["seconds"] = ("frame", np.arange(n_frames) * attributes["window"])
    if sites:
        coords |= results.axes(sites, columns["signed"][0])
    if draws_kept:
        coords["alpha"] = (("clip", "draw"), results.padded(columns["alpha"]))
        coords["path"] = ("draw", np.arange(attributes["n"]) // steps)
    return xr.Dataset(variables, coords, attributes)


def one_clip(shap: xr.Dataset, index) -> xr.Dataset:
    """Return the frames of one clip, without padding; raise ValueError if their draws were kept."""
    if "draw" in shap.dims:
        raise ValueError("these frames hold single draws: use gradient_shap with reduce='mean' instead")
    frames = shap.sel(clip=index)
    return frames.isel(frame=slice(int(frames["n_frames"])))
