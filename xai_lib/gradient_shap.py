"""Which part of a clip speaks for a class: GradientSHAP on the waveform, and what its top frames are worth."""

from functools import partial

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.stats import rankdata, spearmanr

from . import audio, execution, targets

_TOLD = ("target", "target_probability", "predicted", "probability")  # of each clip


def gradient_shap(
    model, clips, *, target, baseline="noise", n=32, window=0.02, scale="logit", seed=0, batch=16
) -> xr.Dataset:
    """Attribution of a class to the moments of each clip.

    (x − b) · gradient at b + α (x − b), with a baseline b and an α drawn anew `n` times, summed over the samples of
    each window and averaged over draws. Draw i takes its α uniformly from i/n to (i + 1)/n: as right as α from 0 to 1,
    with less spread.

    Parameters
    ----------
    target, scale
        As in `attribution.grad_x_activation`.
    baseline : str or DataFrame
        "noise" with the clip's mean and SD, "silence", or clips, of which each draw takes one at random (from a random
        moment on, repeated where too short).
    window : float
        Seconds; 0.02 gives the encoder's frames: frame i is the samples from i hops on, one hop long. The last one
        takes what is left.
    batch : int
        Draws that share a pass. Clips never do, so nothing is padded.

    Returns
    -------
    Dataset [clip, frame], NaN beyond a clip's own `n_frames`
        `attribution` and its standard error over draws, `error`, in units of the scale (as if α were not stratified, so
        rather too large); `level` (dBFS) and `speech` (share of the window) of the same windows. Per clip: `residual`,
        the sum of the attributions minus (f(x) − mean f(b)), which is 0 if they account for all of it, and its
        `residual_error` over draws. Coordinates: `seconds` (start of a frame); `target`, `target_probability`,
        `predicted`, `probability`.

    Raises
    ------
    UntrainedHead, ValueError
        A random head; an unknown option; not one usable clip.

    References
    ----------
    Lundberg and Lee (2017), A unified approach to interpreting model predictions; Erion et al. (2021), expected
    gradients. Equals captum.attr.GradientShap under the same draws.
    """
    targets.check(model, target, scale)
    if not (isinstance(baseline, pd.DataFrame) or baseline in ("noise", "silence")):
        raise ValueError(f'unknown baseline {baseline!r}: "noise", "silence" or a table of clips')
    if n < 2:
        raise ValueError(f"n must be 2 or more, for a standard error over draws, not {n}")
    skipped, rows = {}, {}
    for index, waveform in model.stream(clips, skipped):
        width, count = windows(model, len(waveform), window)
        draw = partial(draws, n=n, baseline=baseline, key=(seed, clips.index.get_loc(index)), rate=model.sample_rate)
        found, gap, named = _explain(model, model.tensor(waveform)[0], draw, target, scale, (width, count), n, batch)
        left = found.sum(axis=1) - gap
        rows[index] = {
            "attribution": found.mean(axis=0),
            "error": found.std(axis=0, ddof=1) / n**0.5,
            **_moments(model, waveform, width, count),
            "residual": left.mean(),
            "residual_error": left.std(ddof=1) / n**0.5,
            **named,
            "n_frames": count,
        }
    made = {"method": "gradient_shap", "scale": scale, "n": n, "window": width / model.sample_rate, "seed": seed}
    made["baseline"] = baseline if isinstance(baseline, str) else "clips"
    return _dataset(clips, rows, targets.attributes(model, skipped, **made))


def _explain(model, x, draw, target, scale, shape, n, batch):
    """One clip: attributions [draw, window], f(x) − f(b) [draw], and the coordinates that tell its prediction."""
    with torch.no_grad():
        logits = model.logits(x[None])
    classes = targets.resolve(model, target, logits)

    def attribute(chosen):
        alphas, others = draw(x, chosen)
        points = (others + alphas[:, None] * (x - others)).requires_grad_()
        with torch.enable_grad():
            total = targets.value(model.logits(points), classes, scale).sum()
            (slope,) = torch.autograd.grad(total, points)
        with torch.no_grad():
            at = targets.value(model.logits(others), classes, scale)
        return torch.cat([_summed((x - others) * slope, *shape), at[:, None]], dim=1)

    found = torch.cat([*execution.in_batches(attribute, n, batch)]).double().cpu().numpy()
    share = torch.softmax(logits[0], dim=-1).cpu().numpy()
    named = targets.name(model, classes), share[classes[0]], model.labels[share.argmax()], share.max()
    return found[:, :-1], targets.value(logits, classes, scale).item() - found[:, -1], dict(zip(_TOLD, named))


def draws(x, chosen, *, n, baseline, key, rate):
    """α [draw] and baselines [draw, time] of the draws `chosen` of n; the same however they are batched."""
    alphas, others = [], []
    for i in chosen:
        rng = np.random.default_rng([*key, i])
        alphas.append((i + rng.uniform()) / n)
        if isinstance(baseline, pd.DataFrame):
            wave = audio.read(baseline["path"].iloc[rng.integers(len(baseline))], rate)
            other = np.resize(np.roll(wave, -rng.integers(len(wave))), len(x))
        elif baseline == "noise":
            other = x.mean().item() + x.std(correction=0).item() * rng.standard_normal(len(x))
        else:
            other = np.zeros(len(x))
        others.append(torch.as_tensor(other, dtype=x.dtype))
    return torch.tensor(alphas, dtype=x.dtype, device=x.device), torch.stack(others).to(x.device)


def frame_table(shap) -> pd.DataFrame:
    """One row per clip: prediction, completeness, and whether the attribution only follows the energy.

    `speech_time` and `speech_attribution` are the shares of the time, and of the absolute attribution, that lie in
    speech; `level_rho` is the rank correlation of absolute attribution and level (dB) over frames.
    """
    rows = {}
    for clip in shap["clip"].values:
        one = _clip(shap, clip)
        size, speech = np.abs(one["attribution"].values), one["speech"].values
        rows[clip] = {
            **{name: one[name].item() for name in (*_TOLD, "residual", "residual_error")},
            "speech_time": speech.mean(),
            "speech_attribution": (size * speech).sum() / size.sum(),
            "level_rho": spearmanr(size, one["level"].values).statistic,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("clip")


def top_frames(shap, k) -> pd.DataFrame:
    """The `k` frames of each clip with the greatest attribution: `clip`, `frame`, `start`, `stop` (s), `attribution`,
    `error`."""
    tables = []
    for clip in shap["clip"].values:
        one = _clip(shap, clip)
        table = one[["seconds", "attribution", "error"]].to_dataframe().reset_index()
        table = table.nlargest(k, "attribution", keep="first").rename(columns={"seconds": "start"})
        table.insert(2, "stop", table["start"] + shap.attrs["window"])
        tables.append(table[["clip", "frame", "start", "stop", "attribution", "error"]])
    return pd.concat(tables, ignore_index=True)


def gate(waveform, keep, *, window=0.02, sample_rate=16_000, fade=0.004) -> np.ndarray:
    """The waveform [time] with all frames silenced but those to `keep` [frame]; edges are faded, in seconds."""
    gain = np.repeat(np.asarray(keep, float), round(window * sample_rate))[: len(waveform)]
    gain = np.pad(gain, (0, len(waveform) - len(gain)), mode="edge")
    ramp = np.hanning(2 * (round(fade * sample_rate) // 2) + 3)
    smooth = np.convolve(np.pad(gain, len(ramp) // 2, mode="edge"), ramp / ramp.sum(), mode="valid")
    return (waveform * smooth).astype(np.float32)


@torch.no_grad()
def frame_deletion(
    model, clips, shap, *, target, share=0.2, frames="speech", n=10, scale="log_odds", seed=0, batch=16
) -> xr.DataArray:
    """How much the target loses when a share of the frames is silenced: those on top, against controls.

    Parameters
    ----------
    shap : Dataset
        From `gradient_shap`, of these clips.
    share : float
        Of the frames in question.
    frames : str
        Which those are: "speech" (more than half of a frame), or "all". Silencing a pause costs nothing, so controls
        that may fall into pauses are beaten by whatever finds the speech.
    n : int
        Draws of each random control.

    Returns
    -------
    DataArray [clip, mode], in units of the scale
        Clean minus silenced. `top`: the frames of greatest attribution. Controls of as many of the same frames:
        `loudest`, which asks whether attribution knows more than energy; `shifted`, the top frames moved along these
        frames in a circle, so that they stay as clustered as they are; `random`. The last two are means over `n` draws.
        Clips without speech are in attrs["skipped"].
    """
    targets.check(model, target, scale)
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, not {share}")
    if frames not in ("all", "speech"):
        raise ValueError(f'unknown frames {frames!r}: "all" or "speech"')
    clips, rows, skipped = clips.loc[shap["clip"].values], {}, {}
    for index, waveform in model.stream(clips):
        one, rng = _clip(shap, index), np.random.default_rng([seed, clips.index.get_loc(index)])
        pool = np.flatnonzero(one["speech"] > 0.5) if frames == "speech" else np.arange(one.sizes["frame"])
        if len(pool) == 0:
            skipped[index] = "no speech was found in it: use frames='all'"
            continue
        masks = deletion_masks(one["attribution"].values, one["level"].values, pool, share, n, rng)
        cut = partial(gate, waveform, window=shap.attrs["window"], sample_rate=model.sample_rate)
        waves = torch.cat([model.tensor(cut(~mask)) for mask in masks])
        logits = execution.forward(model, waves, batch)
        values = targets.value(logits, targets.resolve(model, target, logits[:1]), scale).double().cpu().numpy()
        drop = values[0] - values[1:]
        rows[index] = [drop[0], drop[1], drop[2 : 2 + n].mean(), drop[2 + n :].mean()]
    if not rows:
        raise ValueError(f"not one clip could be used: {next(iter(skipped.values()))}")
    coords = {**targets.coordinates(clips, rows), "mode": ["top", "loudest", "shifted", "random"]}
    made = {"method": "frame_deletion", "share": share, "frames": frames, "n": n, "scale": scale}
    attributes = targets.attributes(model, skipped, **made)
    return xr.DataArray(np.array(list(rows.values())), coords, ("clip", "mode"), "drop", attributes)


def deletion_masks(attribution, level, pool, share, n, rng):
    """What is silenced, [3 + 2n, frame], within `pool`: nothing, top, loudest, n times shifted, n times random."""
    size, count = len(pool), max(round(share * len(pool)), 1)
    top, loudest = (rankdata(-values[pool], method="ordinal") <= count for values in (attribution, level))
    shifted = [np.roll(top, rng.integers(1, max(size, 2))) for _ in range(n)]
    masks = np.zeros((3 + 2 * n, len(level)), bool)
    masks[1:, pool] = [top, loudest, *shifted, *(rng.permutation(top) for _ in range(n))]
    return masks


def windows(model, n_samples, seconds) -> tuple[int, int]:
    """Width in samples and number of the windows over a clip; the last takes what is left. 0.02 s: its frames."""
    width = round(seconds * model.sample_rate)
    if width < 1:
        raise ValueError(f"a window of {seconds} s is shorter than one sample")
    return width, -(-model.n_frames(n_samples) * model.hop // width)


def _summed(values, width, count):
    """[draw, time] to [draw, window]."""
    end = count * width
    body = torch.nn.functional.pad(values, (0, max(end - values.shape[1], 0)))[:, :end]
    out = body.reshape(len(values), count, width).sum(dim=-1)
    out[:, -1] += values[:, end:].sum(dim=-1)
    return out


def _moments(model, waveform, width, count):
    """Level (dBFS) and share of speech of each window."""
    starts = np.arange(count) * width
    size = np.diff(np.append(starts, len(waveform)))
    power = np.add.reduceat(np.square(waveform, dtype=float), starts) / size
    speech = np.repeat(model.speech(waveform), model.hop)
    speech = np.pad(speech.astype(float), (0, len(waveform) - len(speech)), mode="edge")
    return {"level": 10 * np.log10(power + 1e-12), "speech": np.add.reduceat(speech, starts) / size}


def _dataset(clips, rows, attributes):
    """Rows {index: {name: number, text, or array [frame]}} as one Dataset."""
    columns = {name: [row[name] for row in rows.values()] for name in next(iter(rows.values()))}
    coords = targets.coordinates(clips, rows, **{name: columns.pop(name) for name in (*_TOLD, "n_frames")})
    data = {
        name: (("clip", "frame"), targets.padded(values)) if np.ndim(values[0]) else ("clip", values)
        for name, values in columns.items()
    }
    seconds = np.arange(data["level"][1].shape[1]) * attributes["window"]
    return xr.Dataset(data, {**coords, "seconds": ("frame", seconds)}, attributes)


def _clip(shap, index):
    """One clip's own frames."""
    one = shap.sel(clip=index)
    return one.isel(frame=slice(int(one["n_frames"])))
