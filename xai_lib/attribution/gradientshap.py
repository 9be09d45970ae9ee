"""GradientSHAP on the waveform: attribution of a class to the frames of a clip and to neurons."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.stats import spearmanr

from .. import audio, execution, hooks, results, targets
from ..activations import require_named_frames, usable
from ..corpora import as_clips

REDUCE = ("mean", "sum", "max", "none")
_PREDICTION = ("target", "target_probability", "predicted", "probability")  # coordinates of each clip


def gradient_shap(
    model,
    clips,
    *,
    target,
    baseline="noise",
    n=64,
    steps=8,
    window=0.02,
    reduce="mean",
    layers=None,
    part="hidden_state",
    frames="all",
    scale="logit",
    seed=0,
    batch=16,
    sample_rate=None,
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
    """
    clips = as_clips(clips, sample_rate)
    targets.check(model, target, scale)
    if isinstance(baseline, str) and baseline not in ("noise", "silence"):
        raise ValueError(f'unknown baseline {baseline!r}: use "noise", "silence" or clips')
    if not isinstance(baseline, str):
        baseline = as_clips(baseline, sample_rate)
    if reduce not in REDUCE:
        raise ValueError(f"unknown reduce {reduce!r}: use {', '.join(REDUCE)}")
    if steps < 1 or n < 2 * steps or n % steps:
        reason = "the standard error is over paths of `steps` draws each"
        raise ValueError(f"n must be a multiple of steps, twice or more ({reason}), not n={n} with steps={steps}")
    require_named_frames(frames)
    sites, skipped, rows = [] if layers is None else model.sites(part, layers), {}, {}
    for index, waveform, frame_mask in usable(model, clips, frames, skipped):
        width, count = windows(model, len(waveform), window)
        key = targets.key(seed, index, targets.SEED_GRADIENT_SHAP)
        draw = partial(draws, steps=steps, baseline=baseline, key=key, rate=model.sample_rate)
        x, shape = model.tensor(waveform)[0], (width, count)
        alphas, attribution, change, neurons, prediction = _explain(
            model, x, draw, target, scale, shape, sites, n, steps, batch
        )
        paths = attribution.reshape(-1, steps, count).mean(axis=1)
        residual, root = paths.sum(axis=1) - change, len(paths) ** 0.5
        rows[index] = {
            "attribution": attribution if reduce == "none" else getattr(attribution, reduce)(axis=0),
            "error": paths.std(axis=0, ddof=1) / root * {"mean": 1, "sum": n}.get(reduce, np.nan),
            **_level_and_speech(model, waveform, width, count),
            "residual": residual.mean(),
            "residual_error": residual.std(ddof=1) / root,
            **({"alpha": alphas} if reduce == "none" else {}),
            **_neurons(neurons, frame_mask, change.mean()),
            **prediction,
            "n_frames": count,
        }
    attrs = {"method": "gradient_shap", "scale": scale, "n": n, "steps": steps, "seed": seed, "reduce": reduce}
    attrs |= {"window": width / model.sample_rate, "baseline": baseline if isinstance(baseline, str) else "clips"}
    attrs |= {"part": part, "frames": frames} if sites else {}
    return _dataset(clips, rows, sites, steps, results.attributes(model, skipped, **attrs))


def _explain(model, x, draw, target, scale, shape, sites, n, steps, batch):
    """Attribute the class of one clip to its windows and to neurons.

    Returns α [draw], attributions [draw, window], f(x) − f(b) [path], attributions of neurons [layer, frame, neuron],
    which are means over paths, and the coordinates that hold its prediction.
    """

    def forward(waves):
        with hooks.capture(model, sites) as captured:
            return model.logits(waves), [captured[site] for site in sites]

    with torch.no_grad():
        logits, ends = forward(x[None])
    classes = targets.resolve(model, target, logits)
    before = [(end, end) for end in ends]  # hidden and gradient of the last draw of a batch: it may end inside a path

    def attribute(indices):
        nonlocal before
        alphas, baselines = draw(x, indices)
        first, last = ([row for row, i in enumerate(indices) if i % steps == step] for step in (0, steps - 1))
        with torch.no_grad():
            start, starts = forward(baselines[first]) if first else (logits[:0], [end[:0] for end in ends])
        points = (baselines + alphas[:, None] * (x - baselines)).requires_grad_()
        with torch.enable_grad():
            # Of a clone: torch's counter of FLOPs fails where the input of a module is a leaf.
            outputs, hidden = forward(points.clone())
            slope, *slopes = torch.autograd.grad(targets.value(model, outputs, classes, scale).sum(), [points, *hidden])
        hidden = [values.detach() for values in hidden]
        conductance = [_conductance(*layer, first, last) for layer in zip(hidden, slopes, starts, ends, before)]
        before = [(values[-1:].clone(), grads[-1:].clone()) for values, grads in zip(hidden, slopes)]
        start_value = targets.value(model, start, classes, scale)
        conductance = torch.stack(conductance) if conductance else 0
        return alphas, _summed((x - baselines) * slope, *shape), start_value, conductance

    batches, neurons = [], 0
    for *frame_parts, conductance in execution.in_batches(attribute, n, batch):
        batches.append(frame_parts)
        neurons = neurons + conductance
    alphas, attribution, start_value = (torch.cat(column).cpu().double().numpy() for column in zip(*batches))
    value, scores = targets.value(model, logits, classes, scale).item(), model.scores(logits)[0].cpu().numpy()
    prediction = targets.name(model, classes), scores[classes[0]], model.labels[scores.argmax()], scores.max()
    prediction = {"value": value, **dict(zip(_PREDICTION, prediction))}
    return alphas, attribution, value - start_value, neurons / (n // steps), prediction


def _conductance(hidden, slope, starts, end, before, first, last):
    """Return gradient × change of activation, summed over the draws of a batch [frame, neuron].

    The change is that to each draw from the one before it on its path, or from the baseline where it is the `first`;
    and of the `last` ones also to the clip.
    """
    previous, earlier = (torch.cat([old, new[:-1]]) for old, new in zip(before, (hidden, slope)))
    previous[first], earlier[first] = starts, slope[first]
    total = ((earlier + slope) / 2 * (hidden - previous)).sum(dim=0)
    return total + (slope[last] * (end - hidden[last])).sum(dim=0)


def _neurons(attribution, frame_mask, change):
    """Return sums of [layer, frame, neuron] over the frames that count, and the residual of each layer."""
    if not torch.is_tensor(attribution):
        return {}
    attribution = attribution.cpu().double().numpy()
    counted = attribution[:, frame_mask]
    return {
        "signed": counted.sum(axis=1),
        "absolute": np.abs(counted).sum(axis=1),
        "neuron_residual": attribution.sum(axis=(1, 2)) - change,
    }


def draws(x, indices, *, steps, baseline, key, rate):
    """Return α [draw] and baselines [draw, time] of draws, given by number, `steps` a path; independent of batching."""
    # The number of a path is part of its seed.
    paths = {path: _path(x, steps, baseline, (*key, path), rate) for path in {i // steps for i in indices}}
    alphas = [paths[i // steps][0][i % steps] for i in indices]
    baselines = torch.stack([paths[i // steps][1] for i in indices])
    return torch.tensor(alphas, dtype=x.dtype, device=x.device), baselines.to(x.device)


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
    return (np.arange(steps) + rng.uniform(size=steps)) / steps, torch.as_tensor(start, dtype=x.dtype)


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


def frame_table(shap) -> pd.DataFrame:
    """Return one row per clip: prediction, completeness, and whether the attribution only follows the energy.

    `speech_time` and `speech_attribution` are the shares of the time, and of the absolute attribution, that lie in
    speech; `level_rho` is the rank correlation of absolute attribution and level (dB) over frames.
    """
    rows = {}
    for clip in shap["clip"].values:
        frames = one_clip(shap, clip)
        size, speech = np.abs(frames["attribution"].values), frames["speech"].values
        rows[clip] = {
            **{name: frames[name].item() for name in (*_PREDICTION, "residual", "residual_error")},
            "speech_time": speech.mean(),
            "speech_attribution": (size * speech).sum() / size.sum(),
            "level_rho": spearmanr(size, frames["level"].values).statistic,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("clip")


def top_frames(shap, k) -> pd.DataFrame:
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


def windows(model, n_samples, seconds) -> tuple[int, int]:
    """Return the width in samples and the number of the windows over a clip.

    The last window takes the remaining samples. 0.02 s gives the clip's frames.
    """
    width = round(seconds * model.sample_rate)
    if width < 1:
        raise ValueError(f"a window of {seconds} s is shorter than one sample: use a longer one")
    return width, -(-model.n_frames(n_samples) * model.hop // width)


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
    size = np.diff(np.append(starts, len(waveform)))
    power = np.add.reduceat(np.square(waveform, dtype=float), starts) / size
    speech = np.repeat(model.speech(waveform), model.hop)
    speech = np.pad(speech.astype(float), (0, len(waveform) - len(speech)), mode="edge")
    return {"level": 10 * np.log10(power + 1e-12), "speech": np.add.reduceat(speech, starts) / size}


def _dataset(clips, rows, sites, steps, attributes):
    """Return rows {index: {name: number, text, or array}} as one Dataset."""
    columns = {name: [row[name] for row in rows.values()] for name in next(iter(rows.values()))}
    coords = results.coordinates(
        clips, rows, **{name: columns.pop(name) for name in (*_PREDICTION, "value", "n_frames")}
    )
    dims = dict.fromkeys(("attribution", "error", "level", "speech"), ("frame",))
    dims |= {"signed": ("layer", "neuron"), "absolute": ("layer", "neuron"), "neuron_residual": ("layer",)}
    if "alpha" in columns:
        dims |= {"attribution": ("draw", "frame"), "alpha": ("draw",)}
    data = {
        name: (("clip", *dims[name]), results.padded(values)) if name in dims else ("clip", values)
        for name, values in columns.items()
    }
    coords["seconds"] = "frame", np.arange(data["level"][1].shape[1]) * attributes["window"]
    if sites:
        coords |= results.axes(sites, data["signed"][1])
    if "alpha" in columns:
        coords |= {"alpha": data.pop("alpha"), "path": ("draw", np.arange(attributes["n"]) // steps)}
    return xr.Dataset(data, coords, attributes)


def one_clip(shap, index) -> xr.Dataset:
    """Return the frames of one clip, without padding; raise ValueError if their draws were kept."""
    if "draw" in shap.dims:
        raise ValueError("these frames hold single draws: use gradient_shap with reduce='mean' instead")
    frames = shap.sel(clip=index)
    return frames.isel(frame=slice(int(frames["n_frames"])))
