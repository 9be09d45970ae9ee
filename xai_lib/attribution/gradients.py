"""Gradients of the target with respect to every neuron of every layer, and attributions computed from them."""

import warnings
from functools import partial

import numpy as np
import torch
import xarray as xr

from .. import execution, hooks, results, targets
from ..activations import check_activation_stats, require_named_frames, usable
from ..corpora import as_clips


def grad_x_activation(
    model,
    clips,
    *,
    target,
    layers="all",
    part="hidden_state",
    frames="all",
    scale="logit",
    by_frame=False,
    sample_rate=None,
) -> xr.Dataset:
    """Compute gradient times activation of every neuron of every layer: one forward and one backward pass per clip.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    target : str, int, or pair
        A class, "predicted" (that of each clip, reported in the coordinate `target`), or a contrast of two.
    layers : "all", int or sequence of int
    part : {"hidden_state", "attention", "ffn_hidden", "ffn_out"}
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
    """
    clips = as_clips(clips, sample_rate)
    options = {"method": "grad_x_activation", "part": part, "frames": frames, "scale": scale}
    return _layerwise(model, clips, partial(_backward, multiply=True), target, layers, by_frame, options)


def gradient(
    model,
    clips,
    *,
    target,
    layers="all",
    part="hidden_state",
    frames="all",
    scale="logit",
    by_frame=False,
    sample_rate=None,
) -> xr.Dataset:
    """Compute the gradient of the target by every neuron of every layer, summed over frames; as `grad_x_activation`.

    `signed` is how the target changes if the neuron rises by 1 at all those frames.
    """
    clips = as_clips(clips, sample_rate)
    options = {"method": "gradient", "part": part, "frames": frames, "scale": scale}
    return _layerwise(model, clips, partial(_backward, multiply=False), target, layers, by_frame, options)


def integrated_gradients(
    model,
    clips,
    *,
    target,
    baseline="silence",
    steps=32,
    layers="all",
    part="hidden_state",
    frames="all",
    scale="logit",
    activation_stats=None,
    by_frame=False,
    batch=16,
    sample_rate=None,
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
    clips = as_clips(clips, sample_rate)
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    if isinstance(baseline, str) and baseline not in ("zero", "mean", "silence"):
        raise ValueError(f'unknown baseline {baseline!r}: use "zero", "mean", "silence", a waveform or a function')
    if not isinstance(baseline, str) and not callable(baseline) and np.ndim(baseline) != 1:
        raise ValueError(
            f"a baseline waveform must be one-dimensional, [time]; this one has {np.ndim(baseline)} dimensions"
        )
    baseline_name = baseline if isinstance(baseline, str) else "waveform"
    if baseline_name == "mean":
        check_activation_stats(activation_stats, model, part, "baseline='mean'")
    explain = partial(_integrate, baseline=baseline, activation_stats=activation_stats, steps=steps, batch=batch)
    options = {"method": "integrated_gradients", "baseline": baseline_name, "steps": steps}
    options |= {"part": part, "frames": frames, "scale": scale}
    return _layerwise(model, clips, explain, target, layers, by_frame, options)


def _layerwise(model, clips, explain, target, layers, by_frame, options):
    """Return the Dataset of the attributions that `explain` computes for each clip.

    It returns an attribution [layer, frame, neuron], the classes, their value, and the residual and the change of each
    layer, or None where the method has none.
    """
    targets.check(model, target, options["scale"])
    require_named_frames(options["frames"])
    sites, skipped, rows, clip_values = model.sites(options["part"], layers), {}, {}, []
    if options["frames"] == "all":  # class tokens and padding count too
        stream = ((*clip, None) for clip in model.stream(clips, skipped))
    else:
        stream = usable(model, clips, options["frames"], skipped)
    for index, waveform, frame_mask in stream:
        attribution, classes, value, completeness = explain(model, waveform, sites, target, options["scale"])
        frame_mask = np.ones(attribution.shape[1], bool) if frame_mask is None else frame_mask
        if by_frame:
            attribution[:, ~frame_mask] = torch.nan
        else:
            attribution = torch.stack(
                [attribution[:, frame_mask].sum(dim=1), attribution[:, frame_mask].abs().sum(dim=1)]
            )
        rows[index] = attribution.cpu().numpy()
        clip_values.append((targets.name(model, classes), value, len(frame_mask), completeness))
    stacked, (names, values, n_frames, completeness) = results.padded(list(rows.values())), map(list, zip(*clip_values))
    coordinates = {"target": names, "value": values}
    if by_frame:
        dims, data = ("clip", "layer", "frame", "neuron"), (stacked, np.abs(stacked))
        coordinates["n_frames"] = n_frames
    else:
        dims, data = ("clip", "layer", "neuron"), (stacked[:, 0], stacked[:, 1])
    variables = {name: (dims, array) for name, array in zip(("signed", "absolute"), data)}
    if completeness[0] is not None:
        residual, change = np.moveaxis(np.array(completeness), -1, 0)
        variables |= {"residual": (("clip", "layer"), residual), "change": (("clip", "layer"), change)}
        _warn(sites, residual, change)
    return xr.Dataset(
        variables,
        {**results.coordinates(clips, rows, **coordinates), **results.axes(sites, stacked)},
        results.attributes(model, skipped, **options),
    )


def _warn(sites, residual, change):
    """Warn of layers whose attributions do not sum to the change of the target."""
    error = np.median(np.abs(residual) / np.maximum(np.abs(change), 1e-12), axis=0)
    layers = [str(site.layer) for site, ratio in zip(sites, error) if ratio > 0.1]
    if layers:
        miss = f"more than a tenth of the change (up to {error.max():.1f} times it) in layers {', '.join(layers)}"
        warnings.warn(f"integrated gradients miss {miss}: use more steps, or another baseline", stacklevel=4)


def _backward(model, waveform, sites, target, scale, *, multiply):
    """Return gradient, or gradient × activation, [layer, frame, neuron] of one clip from one backward pass."""
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
        attribution = torch.autograd.grad(value, [captured[site] for site in sites])
    if multiply:
        attribution = [slope * captured[site].detach() for slope, site in zip(attribution, sites)]
    return torch.cat(attribution), classes, value.item(), None


@torch.no_grad()
def _integrate(model, waveform, sites, target, scale, *, baseline, activation_stats, steps, batch):
    """Return integrated gradients [layer, frame, neuron] of one clip, and their residual and change [layer]."""
    states, ends = _states(model, waveform, sites)
    logits = execution.suffix(model, states[-1])
    classes = targets.resolve(model, target, logits)
    starts, attribution, completeness = _baseline(model, waveform, sites, ends, baseline, activation_stats), [], []
    for site in sites:
        below, start, change = (
            states[site.layer - (site.part != "hidden_state")],
            starts[site],
            ends[site] - starts[site],
        )

        def value(hidden, site=site, below=below):
            return targets.value(model, _resume(model, below, site, hidden), classes, scale)

        attribution.append(change[0] * _mean_slope(value, start, change, steps, batch))
        difference = targets.value(model, logits, classes, scale) - value(start)
        completeness.append((attribution[-1].cpu().double().sum().item() - difference.item(), difference.item()))
    return torch.stack(attribution), classes, targets.value(model, logits, classes, scale).item(), completeness


def _mean_slope(value, start, change, steps, batch):
    """Return the mean gradient [frame, neuron] of `value` from `start` [1, frame, neuron] to `start + change`."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)

    def slope(rows):
        position, share = (
            change.new_tensor(values[rows.start : rows.stop]) for values in ((1 + nodes) / 2, weights / 2)
        )
        with torch.enable_grad():
            points = (start + position[:, None, None] * change).requires_grad_()
            total = (share * value(points.clone())).sum()  # cloned as in `_backward`
            return torch.autograd.grad(total, points)[0].sum(dim=0)

    return sum(execution.in_batches(slope, steps, batch))


def _states(model, waveform, sites):
    """Return states after each layer up to the highest of the sites, and {site: activations}, from one pass."""
    with hooks.capture(model, sites) as captured:
        return execution.states(model, model.tensor(waveform), sites[-1].layer), captured


def _resume(model, state, site, hidden):
    """Compute logits [row, label] with `hidden` [row, frame, neuron] at the site.

    They start from a state at the site or, for any part but `hidden_state`, below it.
    """
    state = state.repeat_rows(len(hidden))
    if site.part == "hidden_state":
        return execution.suffix(model, model.architecture.replace(state, hidden))
    with hooks.edit(model, {site: lambda _: hidden}):
        return execution.suffix(model, state)


def _baseline(model, waveform, sites, ends, baseline, activation_stats):
    """Return {site: activations [1, frame, neuron]} at the start of the path that leads to `ends`."""
    if isinstance(baseline, str) and baseline == "zero":
        return {site: torch.zeros_like(hidden) for site, hidden in ends.items()}
    if isinstance(baseline, str) and baseline == "mean":
        means = {site: ends[site].new_tensor(activation_stats["mean"].sel(layer=site.layer).values) for site in sites}
        return {site: mean.expand_as(ends[site]) for site, mean in means.items()}
    if isinstance(baseline, str):
        other = np.zeros_like(waveform)
    else:
        other = baseline(waveform) if callable(baseline) else np.resize(baseline, len(waveform))
    if len(other) != len(waveform):
        raise ValueError(f"the baseline function returned {len(other)} samples for a clip of {len(waveform)}")
    return _states(model, other, sites)[1]
