"""Gradients of the target with respect to every neuron of every layer, and attributions computed from them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from .. import execution, hooks, results, targets
from ..activations import check_activation_stats, require_named_frames, usable
from ..checks import require_whole_number
from ..corpora import as_clips
from ..models import require_model

if TYPE_CHECKING:
    from ..models import Model


def grad_x_activation(
    model: Model,
    clips,
    *,
    target: str | int | Sequence[str | int],
    layers: str | int | Sequence[int] = "all",
    part: str = "hidden_state",
    frames: str = "all",
    scale: str = "logit",
    by_frame: bool = False,
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Compute gradient times activation of every neuron of every layer: one forward and one backward pass per clip.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    target : str, int, or pair
        A class, "predicted" (that of each clip, reported in the coordinate `target`), or a contrast of two.
    layers : "all", int or sequence of int
    part : {"hidden_state", "attention", "ffn_hidden", "ffn_out", "heads"}
        See `models.Site`; "heads" where the architecture has it, as WavLM does.
    frames : {"all", "speech"}
        Frames that are summed: all, including class tokens and padding, or those of speech by `audio.speech_mask`.
    scale : {"logit", "log_odds", "probability"}
        The value that is explained.
    by_frame : bool
        Do not sum: the variables gain a dim `frame`, NaN at frames that do not count and beyond a clip's `n_frames`.

    Returns
    -------
    Dataset with `signed` and `absolute` [clip, layer, neuron], or [clip, layer, frame, neuron]
        Sums over frames of gradient × activation and of its absolute value, in units of the scale. Coordinates on
        `clip`: `target`, `value` (of the scale), and what the corpus knows. Clips that could not be used are in
        attrs["skipped"].

    Raises
    ------
    UntrainedHead, ValueError
        A random head; an unknown target, layer, part, frames or scale; no usable clip.

    References
    ----------
    Shrikumar et al. (2016), Not just a black box; captum.attr.LayerGradientXActivation, which it equals when that is
    summed over frames.

    Examples
    --------
    >>> from xai_lib import attribution, corpora, models
    >>> clips = corpora.balanced(corpora.load("sample"), 8)
    >>> scores = attribution.grad_x_activation(models.load("pocket"), clips, target="angry")
    >>> dict(scores["signed"].sizes)
    {'clip': 8, 'layer': 7, 'neuron': 144}
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    return _attribute_layers(
        model,
        clips,
        partial(_backward, multiply=True),
        target=target,
        layers=layers,
        part=part,
        frames=frames,
        scale=scale,
        by_frame=by_frame,
        method="grad_x_activation",
    )


def gradient(
    model: Model,
    clips,
    *,
    target: str | int | Sequence[str | int],
    layers: str | int | Sequence[int] = "all",
    part: str = "hidden_state",
    frames: str = "all",
    scale: str = "logit",
    by_frame: bool = False,
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Compute the gradient of the target by every neuron of every layer, summed over frames; as `grad_x_activation`.

    `signed` is how the target changes if the neuron rises by 1 at all those frames.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    return _attribute_layers(
        model,
        clips,
        partial(_backward, multiply=False),
        target=target,
        layers=layers,
        part=part,
        frames=frames,
        scale=scale,
        by_frame=by_frame,
        method="gradient",
    )


def integrated_gradients(
    model: Model,
    clips,
    *,
    target: str | int | Sequence[str | int],
    baseline: str | np.ndarray | Callable[[np.ndarray], np.ndarray] = "silence",
    steps: int = 32,
    layers: str | int | Sequence[int] = "all",
    part: str = "hidden_state",
    frames: str = "all",
    scale: str = "logit",
    activation_stats: xr.Dataset | None = None,
    by_frame: bool = False,
    batch: int = 16,
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Compute integrated gradients of every neuron of every layer: its share in the target's change from a baseline.

    In one layer at a time the activations go from the baseline to those of the clip; the gradient along this path, at
    Gauss–Legendre nodes, is averaged and multiplied by the change. The nodes of a layer are a batch that resumes there:
    nothing below it runs twice.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    target, layers, part, frames, scale, by_frame
        As in `grad_x_activation`.
    baseline : str, array [time] or function
        Activations that the model has on another waveform: "silence", an array (cut or repeated to the clip's length),
        or a function from the clip's waveform to one of the same length; of 0, "zero"; or each neuron's "mean" over
        training clips, from `activation_stats`. A layer norm scales even the smallest activation up to full size, so
        beside zero the target jumps, and the steps miss it: see `residual`; the other baselines are smoother.
    steps : int
        Nodes of the path.
    activation_stats : Dataset
        Activation statistics as returned by `activations.activation_stats` on training clips, for the same part.
    batch : int
        Nodes that share a pass.

    Returns
    -------
    Dataset as returned by `grad_x_activation`, and `residual` and `change` [clip, layer]
        The sum of the signed attributions over all neurons and all frames (also where fewer count) minus the target's
        `change` from the baseline: 0 if they account for all of it, and smaller with more steps. A warning names the
        layers where it is more than a tenth of the change, in the median clip.

    Raises
    ------
    UntrainedHead, ValueError
        As `grad_x_activation`; an unknown or unfit baseline; missing activation statistics; fewer than 1 step.

    References
    ----------
    Sundararajan et al. (2017), Axiomatic attribution for deep networks; Dhamdhere et al. (2019), How important is a
    neuron? Equals captum.attr.LayerIntegratedGradients, where the baseline is a waveform, and else
    captum.attr.IntegratedGradients of the layers above as a function of the activations. (The first with silence, of
    the waveform x [1, time], layer 3 and the class c, where the head reads the last layer::

        method = LayerIntegratedGradients(model.logits, model.architecture.module(model.check(3)))
        attribution = method.attribute(x, torch.zeros_like(x), target=c, n_steps=32, method="gausslegendre")

    of which the first item, summed over frames, is `signed`.)
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    require_whole_number("steps", steps)
    if isinstance(baseline, str) and baseline not in ("zero", "mean", "silence"):
        raise ValueError(f'unknown baseline {baseline!r}: use "zero", "mean", "silence", a waveform or a function')
    if not isinstance(baseline, str) and not callable(baseline) and np.ndim(baseline) != 1:
        raise ValueError(
            f"a baseline waveform must be one-dimensional, [time]; this one has {np.ndim(baseline)} dimensions"
        )
    baseline_name = baseline if isinstance(baseline, str) else "waveform"
    if baseline_name == "mean":
        check_activation_stats(activation_stats, model, part, "baseline='mean'")
    return _attribute_layers(
        model,
        clips,
        partial(_integrate, baseline=baseline, activation_stats=activation_stats, steps=steps, batch=batch),
        target=target,
        layers=layers,
        part=part,
        frames=frames,
        scale=scale,
        by_frame=by_frame,
        method="integrated_gradients",
        baseline=baseline_name,
        steps=steps,
    )


@dataclass(frozen=True)
class _ClipAttribution:
    """Attribution of the target of one clip.

    Attributes
    ----------
    scores : tensor [layer, frame, neuron]
    classes : tuple of int
        The target, as returned by `targets.resolve`.
    value : float
        Of the target, on the scale.
    residual, change : list of float, by layer, or None
        See `integrated_gradients`; None for methods whose scores need not sum to a change.
    """

    scores: torch.Tensor
    classes: tuple[int, ...]
    value: float
    residual: list[float] | None = None
    change: list[float] | None = None


def _attribute_layers(
    model, clips, explain, *, target, layers, part, frames, scale, by_frame, **method_attrs
) -> xr.Dataset:
    """Return the Dataset of the attributions that `explain` computes for each clip.

    `explain(model, waveform, sites, target, scale)` returns a `_ClipAttribution`.
    """
    targets.check(model, target, scale)
    require_named_frames(frames)
    sites = model.sites(part, layers)
    skipped = {}
    rows = {}
    for index, waveform, frame_mask in _clips_with_frames(model, clips, frames, skipped):
        attribution = explain(model, waveform, sites, target, scale)
        if frame_mask is None:
            frame_mask = np.ones(attribution.scores.shape[1], bool)
        if by_frame:
            scores = _by_frame(attribution.scores, frame_mask)
        else:
            scores = _summed_over_frames(attribution.scores, frame_mask)
        rows[index] = {
            **scores,
            "target": targets.name(model, attribution.classes),
            "value": attribution.value,
            "n_frames": len(frame_mask),
            "residual": attribution.residual,
            "change": attribution.change,
        }

    columns = {}
    for name in next(iter(rows.values())):
        columns[name] = [row[name] for row in rows.values()]

    signed = results.padded(columns["signed"])
    absolute = results.padded(columns["absolute"])
    dims = ("clip", "layer", "frame", "neuron") if by_frame else ("clip", "layer", "neuron")
    variables = {"signed": (dims, signed), "absolute": (dims, absolute)}
    if columns["residual"][0] is not None:
        residual = np.array(columns["residual"])
        change = np.array(columns["change"])
        variables["residual"] = (("clip", "layer"), residual)
        variables["change"] = (("clip", "layer"), change)
        _warn_of_residuals(sites, residual, change)

    clip_coordinates = ["target", "value", "n_frames"] if by_frame else ["target", "value"]
    coordinates = results.coordinates(clips, rows, **{name: columns[name] for name in clip_coordinates})
    attrs = results.attributes(model, skipped, **method_attrs, part=part, frames=frames, scale=scale)
    return xr.Dataset(variables, {**coordinates, **results.axes(sites, signed)}, attrs)


def _clips_with_frames(model, clips, frames, skipped):
    """Yield index, waveform and mask of the frames that count, bool [frame], of usable clips.

    The mask is None where all frames of a hidden state count, class tokens and padding too.
    """
    if frames == "all":
        for index, waveform in model.stream(clips, skipped):
            yield index, waveform, None
    else:
        yield from usable(model, clips, frames, skipped)


def _by_frame(scores, frame_mask):
    """Return signed and absolute scores [layer, frame, neuron], NaN at frames that do not count."""
    signed = np.where(frame_mask[:, np.newaxis], scores.cpu().numpy(), np.nan)
    return {"signed": signed, "absolute": np.abs(signed)}


def _summed_over_frames(scores, frame_mask):
    """Return sums [layer, neuron] over the frames that count, of the scores and of their absolute values."""
    counted = scores[:, frame_mask]
    return {"signed": counted.sum(dim=1).cpu().numpy(), "absolute": counted.abs().sum(dim=1).cpu().numpy()}


def _warn_of_residuals(sites, residual, change):
    """Warn of layers whose attributions do not sum to the change of the target."""
    relative_error = np.abs(residual) / np.maximum(np.abs(change), 1e-12)
    median_error = np.median(relative_error, axis=0)
    layers = [str(site.layer) for site, error in zip(sites, median_error) if error > 0.1]
    if layers:
        miss = (
            f"more than a tenth of the change (up to {median_error.max():.1f} times it) in layers {', '.join(layers)}"
        )
        warnings.warn(f"integrated gradients miss {miss}: use more steps, or another baseline", stacklevel=4)


def _backward(model, waveform, sites, target, scale, *, multiply) -> _ClipAttribution:
    """Compute gradient, or gradient × activation, of one clip from one backward pass."""
    captured = {}

    def capture(hidden, site):
        # No gradient is needed below the lowest site: cut the graph there (the clone: torch's counter of FLOPs fails
        # where the input of a module is a leaf).
        captured[site] = hidden.detach().requires_grad_().clone() if site == sites[0] else hidden
        return captured[site]

    with torch.enable_grad(), hooks.edit(model, {site: partial(capture, site=site) for site in sites}):
        logits = model.logits(model.tensor(waveform))
        classes = targets.resolve(model, target, logits)
        value = targets.value(model, logits, classes, scale)[0]
        scores = torch.autograd.grad(value, [captured[site] for site in sites])
    if multiply:
        scores = [gradient * captured[site].detach() for gradient, site in zip(scores, sites)]
    return _ClipAttribution(torch.cat(scores), classes, value.item())


@torch.no_grad()
def _integrate(model, waveform, sites, target, scale, *, baseline, activation_stats, steps, batch) -> _ClipAttribution:
    """Compute integrated gradients of one clip, and their residual and change by layer."""
    states, ends = _states(model, waveform, sites)
    starts = _starts(model, waveform, sites, ends, baseline, activation_stats)
    logits = execution.suffix(model, states[-1])
    classes = targets.resolve(model, target, logits)
    end_value = targets.value(model, logits, classes, scale)

    scores = []
    residuals = []
    changes = []
    for site in sites:
        below = states[site.layer if site.part == "hidden_state" else site.layer - 1]
        value = partial(_value_at, model, below, site, classes=classes, scale=scale)
        path = ends[site] - starts[site]
        site_scores = path[0] * _mean_gradient(value, starts[site], path, steps, batch)
        change = (end_value - value(starts[site])).item()
        scores.append(site_scores)
        residuals.append(site_scores.cpu().double().sum().item() - change)
        changes.append(change)
    return _ClipAttribution(torch.stack(scores), classes, end_value.item(), residuals, changes)


def _mean_gradient(value, start, path, steps, batch):
    """Return the mean gradient [frame, neuron] of `value` from `start` [1, frame, neuron] to `start + path`."""
    nodes, node_weights = np.polynomial.legendre.leggauss(steps)
    positions = path.new_tensor((1 + nodes) / 2)  # from 0 at the start to 1 at the end
    weights = path.new_tensor(node_weights / 2)

    def weighted_gradient(rows):
        position = positions[rows.start : rows.stop, None, None]
        with torch.enable_grad():
            points = (start + position * path).requires_grad_()
            total = (weights[rows.start : rows.stop] * value(points.clone())).sum()  # cloned as in `_backward`
            return torch.autograd.grad(total, points)[0].sum(dim=0)

    return sum(execution.in_batches(weighted_gradient, steps, batch))


def _states(model, waveform, sites):
    """Return states after each layer up to the highest of the sites, and {site: activations}, from one pass."""
    with hooks.capture(model, sites) as captured:
        return execution.states(model, model.tensor(waveform), sites[-1].layer), captured


def _value_at(model, state, site, hidden, *, classes, scale):
    """Return the target's value [row] with `hidden` [row, frame, neuron] at the site; `state` is as in `_resume`."""
    return targets.value(model, _resume(model, state, site, hidden), classes, scale)


def _resume(model, state, site, hidden):
    """Compute logits [row, label] with `hidden` [row, frame, neuron] at the site.

    They start from a state at the site or, for any part but `hidden_state`, below it.
    """
    state = state.repeat_rows(len(hidden))
    if site.part == "hidden_state":
        return execution.suffix(model, model.architecture.replace(state, hidden))
    with hooks.edit(model, {site: lambda _: hidden}):
        return execution.suffix(model, state)


def _starts(model, waveform, sites, ends, baseline, activation_stats):
    """Return {site: activations [1, frame, neuron]} at the start of the path that leads to `ends`, by site too."""
    if isinstance(baseline, str) and baseline == "zero":
        return {site: torch.zeros_like(end) for site, end in ends.items()}
    if isinstance(baseline, str) and baseline == "mean":
        starts = {}
        for site, end in ends.items():
            mean = activation_stats["mean"].sel(layer=site.layer).values
            starts[site] = end.new_tensor(mean).expand_as(end)
        return starts
    _, starts = _states(model, _baseline_waveform(waveform, baseline), sites)
    return starts


def _baseline_waveform(waveform, baseline):
    """Return the waveform of a baseline, "silence", an array [time] or a function, as long as the clip's."""
    if isinstance(baseline, str):
        return np.zeros_like(waveform)
    if not callable(baseline):
        return np.resize(baseline, len(waveform))
    other = baseline(waveform)
    if len(other) != len(waveform):
        raise ValueError(f"the baseline function returned {len(other)} samples for a clip of {len(waveform)}")
    return other
