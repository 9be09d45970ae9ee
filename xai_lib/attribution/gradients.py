"""Which neurons drive the model towards a class: gradients by every neuron of every layer at once."""

import warnings
from functools import partial

import numpy as np
import torch
import xarray as xr

from .. import execution, hooks, results, targets
from ..activations import check_moments, usable
from ..corpora import as_clips


def grad_x_activation(
    model, clips, *, target, layers="all", part="block", frames="all", scale="logit", by_frame=False, sample_rate=None
) -> xr.Dataset:
    """Gradient times activation of every neuron of every layer: one forward and one backward per clip.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    target : str, int, or pair
        A class, "predicted" (each clip's own, reported in the coordinate `target`), or a contrast of two.
    layers : "all", int or sequence of int
    part : {"block", "attention", "ffn_hidden", "ffn_out"}
    frames : {"all", "speech"}
        Which frames are summed: all, class tokens and padding among them, or those of speech by `audio.speech_mask`.
    scale : {"logit", "log_odds", "probability"}
        What is explained.
    by_frame : bool
        Sum nothing: the variables gain a dim `frame`, NaN at frames that do not count and beyond a clip's `n_frames`.

    Returns
    -------
    Dataset with `signed` and `absolute` [clip, layer, neuron], or [clip, layer, frame, neuron]
        Sums over frames of gradient × activation and of its absolute value, in units of the scale. Coordinates on
        `clip`: `target`, `value` (of the scale), and what the corpus knows. Clips that could not be used are in
        attrs["skipped"].

    Raises
    ------
    UntrainedHead, ValueError
        A random head; an unknown target, layer, part, frames or scale, or not one usable clip.

    References
    ----------
    Shrikumar et al. (2016), Not just a black box; captum.attr.LayerGradientXActivation, which it equals when that is
    summed over frames.
    """
    clips = as_clips(clips, sample_rate)
    options = {"method": "grad_x_activation", "part": part, "frames": frames, "scale": scale}
    return _layerwise(model, clips, partial(_backward, times=True), target, layers, by_frame, options)


def gradient(
    model, clips, *, target, layers="all", part="block", frames="all", scale="logit", by_frame=False, sample_rate=None
) -> xr.Dataset:
    """Gradient of the target by every neuron of every layer, summed over frames; as `grad_x_activation`.

    `signed` says how the target moves if the neuron rises by 1 at all those frames.
    """
    clips = as_clips(clips, sample_rate)
    options = {"method": "gradient", "part": part, "frames": frames, "scale": scale}
    return _layerwise(model, clips, partial(_backward, times=False), target, layers, by_frame, options)


def integrated_gradients(
    model,
    clips,
    *,
    target,
    baseline="silence",
    steps=32,
    layers="all",
    part="block",
    frames="all",
    scale="logit",
    moments=None,
    by_frame=False,
    batch=16,
    sample_rate=None,
) -> xr.Dataset:
    """Integrated gradients of every neuron of every layer: what it adds to the target on the way from a baseline.

    In one layer at a time the activations go from the baseline to those of the clip; the gradient on the way, at
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
        or a function from the clip's waveform to one of the same length; of 0, "zero"; or of each neuron's "mean" over
        training clips, `moments`. A layer norm makes a whole of the least activation, so beside zero the target jumps,
        and the steps miss it: see `residual`; the other baselines are gentler.
    steps : int
        Nodes of the path.
    moments : Dataset
        Of `activations.moments` on training clips, for the same part.
    batch : int
        Nodes that share a pass.

    Returns
    -------
    Dataset as of `grad_x_activation`, and `residual` and `change` [clip, layer]
        The sum of the signed attributions over all neurons and all frames (also where fewer count) minus the target's
        `change` from the baseline: 0 if they account for all of it, and smaller with more steps. It warns of layers
        where it is more than a tenth of the change, in the median clip.

    Raises
    ------
    UntrainedHead, ValueError
        As `grad_x_activation`; an unknown or unfit baseline; moments are missing; fewer than 1 step.

    References
    ----------
    Sundararajan et al. (2017), Axiomatic attribution for deep networks; Dhamdhere et al. (2019), How important is a
    neuron? Equals captum.attr.LayerIntegratedGradients, where the baseline is a waveform, and else
    captum.attr.IntegratedGradients of the layers above as a function of the activations. (The first with silence, of
    the waveform x [1, time], layer 3 and the class c, where the head reads the last layer::

        method = LayerIntegratedGradients(model.logits, model.family.module(model.check(3)))
        found = method.attribute(x, torch.zeros_like(x), target=c, n_steps=32, method="gausslegendre")

    of which the first item, summed over frames, is `signed`.)
    """
    clips = as_clips(clips, sample_rate)
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    if isinstance(baseline, str) and baseline not in ("zero", "mean", "silence"):
        raise ValueError(f'unknown baseline {baseline!r}: "zero", "mean", "silence", a waveform or a function')
    if not isinstance(baseline, str) and not callable(baseline) and np.ndim(baseline) != 1:
        raise ValueError(f"a baseline waveform is one-dimensional, [time]; this one has {np.ndim(baseline)} dimensions")
    named = baseline if isinstance(baseline, str) else "waveform"
    if named == "mean":
        check_moments(moments, model, part, "baseline='mean'")
    path = partial(_integrate, baseline=baseline, moments=moments, steps=steps, batch=batch)
    made = {"method": "integrated_gradients", "baseline": named, "steps": steps}
    made |= {"part": part, "frames": frames, "scale": scale}
    return _layerwise(model, clips, path, target, layers, by_frame, made)


def _layerwise(model, clips, explain, target, layers, by_frame, options):
    """The Dataset of `explain`, which gives of each clip an attribution [layer, frame, neuron], the classes, their
    value and the residual [layer], or None where the method has none."""
    targets.check(model, target, options["scale"])
    sites, skipped, rows, told = model.sites(options["part"], layers), {}, {}, []
    if isinstance(options["frames"], str) and options["frames"] == "all":  # class tokens and padding have their part
        stream = ((*clip, None) for clip in model.stream(clips, skipped))
    else:
        stream = usable(model, clips, options["frames"], skipped)
    for index, waveform, keep in stream:
        found, classes, value, left = explain(model, waveform, sites, target, options["scale"])
        keep = np.ones(found.shape[1], bool) if keep is None else keep
        if by_frame:
            found[:, ~keep] = torch.nan
        else:
            found = torch.stack([found[:, keep].sum(dim=1), found[:, keep].abs().sum(dim=1)])
        rows[index] = found.cpu().numpy()
        told.append((targets.name(model, classes), value, len(keep), left))
    stacked, (names, values, n_frames, left) = results.padded(list(rows.values())), map(list, zip(*told))
    about = {"target": names, "value": values}
    if by_frame:
        dims, data = ("clip", "layer", "frame", "neuron"), (stacked, np.abs(stacked))
        about["n_frames"] = n_frames
    else:
        dims, data = ("clip", "layer", "neuron"), (stacked[:, 0], stacked[:, 1])
    variables = {name: (dims, found) for name, found in zip(("signed", "absolute"), data)}
    if left[0] is not None:
        residual, change = np.moveaxis(np.array(left), -1, 0)
        variables |= {"residual": (("clip", "layer"), residual), "change": (("clip", "layer"), change)}
        _warn(sites, residual, change)
    return xr.Dataset(
        variables,
        {**results.coordinates(clips, rows, **about), **results.axes(sites, stacked)},
        results.attributes(model, skipped, **options),
    )


def _warn(sites, residual, change):
    """Of layers whose attributions do not add up."""
    away = np.median(np.abs(residual) / np.maximum(np.abs(change), 1e-12), axis=0)
    bad = [str(site.layer) for site, share in zip(sites, away) if share > 0.1]
    if bad:
        share = f"more than a tenth of the change (up to {away.max():.1f} times it) in layers {', '.join(bad)}"
        warnings.warn(f"integrated gradients miss {share}: take more steps, or another baseline", stacklevel=4)


def _backward(model, waveform, sites, target, scale, *, times):
    """Gradient, or gradient × activation, [layer, frame, neuron] of one clip from one backward."""
    seen = {}

    def keep(hidden, site):
        # No gradient is needed below the lowest site: cut the graph there (the clone: torch's counter of FLOPs fails
        # where the input of a module is a leaf).
        seen[site] = hidden.detach().requires_grad_().clone() if site == sites[0] else hidden
        return seen[site]

    with torch.enable_grad(), hooks.edit(model, {site: partial(keep, site=site) for site in sites}):
        logits = model.logits(model.tensor(waveform))
        classes = targets.resolve(model, target, logits)
        value = targets.value(model, logits, classes, scale)[0]
        found = torch.autograd.grad(value, [seen[site] for site in sites])
    if times:
        found = [slope * seen[site].detach() for slope, site in zip(found, sites)]
    return torch.cat(found), classes, value.item(), None


@torch.no_grad()
def _integrate(model, waveform, sites, target, scale, *, baseline, moments, steps, batch):
    """Integrated gradients [layer, frame, neuron] of one clip, and what they leave unexplained [layer]."""
    states, here = _states(model, waveform, sites)
    logits = execution.suffix(model, states[-1])
    classes = targets.resolve(model, target, logits)
    there, found, left = _baseline(model, waveform, sites, here, baseline, moments), [], []
    for site in sites:
        below, start, change = states[site.layer - (site.part != "block")], there[site], here[site] - there[site]

        def value(hidden, site=site, below=below):
            return targets.value(model, _resume(model, below, site, hidden), classes, scale)

        found.append(change[0] * _mean_slope(value, start, change, steps, batch))
        gap = targets.value(model, logits, classes, scale) - value(start)
        left.append((found[-1].cpu().double().sum().item() - gap.item(), gap.item()))
    return torch.stack(found), classes, targets.value(model, logits, classes, scale).item(), left


def _mean_slope(value, start, change, steps, batch):
    """Mean gradient [frame, neuron] of `value` on the way from `start` [1, frame, neuron] to `start + change`."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)

    def slope(rows):
        at, share = (change.new_tensor(values[rows.start : rows.stop]) for values in ((1 + nodes) / 2, weights / 2))
        with torch.enable_grad():
            points = (start + at[:, None, None] * change).requires_grad_()
            total = (share * value(points.clone())).sum()  # the clone: as above
            return torch.autograd.grad(total, points)[0].sum(dim=0)

    return sum(execution.in_batches(slope, steps, batch))


def _states(model, waveform, sites):
    """States after each layer up to the highest of the sites, and {site: activations}, of one pass."""
    with hooks.capture(model, sites) as seen:
        return execution.states(model, model.tensor(waveform), sites[-1].layer), seen


def _resume(model, state, site, hidden):
    """Logits [row, label] with `hidden` [row, frame, neuron] at the site, from a state at it or, of a part, below."""
    state = state.spread(len(hidden))
    if site.part == "block":
        return execution.suffix(model, model.family.replace(state, hidden))
    with hooks.edit(model, {site: lambda _: hidden}):
        return execution.suffix(model, state)


def _baseline(model, waveform, sites, here, baseline, moments):
    """{site: activations [1, frame, neuron]} where the path begins."""
    if isinstance(baseline, str) and baseline == "zero":
        return {site: torch.zeros_like(hidden) for site, hidden in here.items()}
    if isinstance(baseline, str) and baseline == "mean":
        means = {site: here[site].new_tensor(moments["mean"].sel(layer=site.layer).values) for site in sites}
        return {site: mean.expand_as(here[site]) for site, mean in means.items()}
    if isinstance(baseline, str):
        other = np.zeros_like(waveform)
    else:
        other = baseline(waveform) if callable(baseline) else np.resize(baseline, len(waveform))
    if len(other) != len(waveform):
        raise ValueError(f"the baseline function returned {len(other)} samples for a clip of {len(waveform)}")
    return _states(model, other, sites)[1]
