"""Proxies of acoustic features, computed from activations [..., frame, neuron], and their agreement with the true ones.

A proxy must be read after the edit: a norm is the same whatever the signs of its neurons, so at the edited site `rms`
and `centroid` are blind to a flip, and so is `zcr` where all frames of all neurons are flipped. Where a block ends in a
layer norm (`model.architecture.norms(1)` is not None, as in wavlm-base), they are nearly blind after every block,
edited or not: it makes the norm nearly the same in all frames, but for its weights.
"""

from functools import partial

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import audio, execution, hooks, results, statistics
from ..activations import hidden_states
from ..corpora import as_clips

PROXIES = ("rms", "zcr", "centroid")


def rms(hidden) -> torch.Tensor:
    """Compute the L2 norm over neurons, averaged over frames: [..., frame, neuron] to [...]."""
    return torch.linalg.vector_norm(hidden, dim=-1).mean(dim=-1)


def zcr(hidden, component, centre, *, frame_seconds=0.02) -> torch.Tensor:
    """Compute zero crossings per second of the score on one principal component: [..., frame, neuron] to [...].

    `component` and `centre` [neuron] are from `fit`: the same before and after an edit, or they could not be compared.
    """
    positive = (hidden - centre) @ component >= 0
    return (positive[..., 1:] != positive[..., :-1]).to(hidden.dtype).mean(dim=-1) / frame_seconds


def centroid(hidden, *, frame_seconds=0.02) -> torch.Tensor:
    """Compute the centroid (Hz) of the magnitude spectrum of the norm's time course, its mean removed: [...].

    It lies below 25 Hz with frames of 20 ms: how fast the activation fluctuates, not how bright the voice is.
    NaN where the norm is constant.
    """
    norm = torch.linalg.vector_norm(hidden, dim=-1)
    spectrum = torch.fft.rfft(norm - norm.mean(dim=-1, keepdim=True)).abs()
    hertz = torch.fft.rfftfreq(norm.shape[-1], frame_seconds, device=norm.device, dtype=norm.dtype)
    total = spectrum.sum(dim=-1)
    constant = total <= 1e-6 * norm.sum(dim=-1)  # up to rounding
    return torch.where(constant, torch.nan, (spectrum * hertz).sum(dim=-1) / torch.where(constant, 1, total))


def readout_functions(model, fitted) -> dict:
    """Return readouts for `execution.cascade_read`, at every layer: {Site: [row, frame, neuron] to [row, proxy]}."""
    if (fitted.sizes["layer"], fitted.sizes["neuron"]) != (model.n_layers + 1, model.n_neurons(0)):
        raise ValueError("these proxies were fitted on another model: use activation_proxies.fit(model, clips)")

    def read(component, centre, hidden):
        step = {"frame_seconds": model.frame_seconds}
        return torch.stack([rms(hidden), zcr(hidden, component, centre, **step), centroid(hidden, **step)], -1)

    axes = [torch.as_tensor(fitted[name].values).float().to(model.device) for name in ("component", "centre")]
    return {hooks.Site(layer): partial(read, *axis) for layer, axis in enumerate(zip(*axes))}


def fit(model, clips, *, sample_rate=None) -> xr.Dataset:
    """Fit the first principal component of every layer over the frames of training clips, and measure how clips differ.

    Returns
    -------
    Dataset
        `component`, `centre` [layer, neuron]; `explained`, the component's share of the variance [layer]; `sd` of each
        proxy between clips [layer, proxy]. Two passes over the clips; only sums are kept (float64).
    """
    clips = as_clips(clips, sample_rate)
    skipped, n, sums, squares = {}, 0, 0, 0
    for _, hidden, _ in hidden_states(model, clips, model.sites(), skipped):
        hidden, n = hidden.cpu().double(), n + hidden.shape[1]
        sums, squares = sums + hidden.sum(dim=1), squares + hidden.mT @ hidden
    centre = sums / n
    values, vectors = torch.linalg.eigh(squares / n - centre[:, :, None] * centre[:, None, :])
    dims = ("layer", "neuron")
    fitted = xr.Dataset(
        {
            "component": (dims, vectors[..., -1].numpy()),
            "centre": (dims, centre.numpy()),
            "explained": ("layer", (values[:, -1] / values.sum(dim=-1)).numpy()),
        },
        {"layer": range(len(centre)), "proxy": list(PROXIES)},
        results.attributes(model, skipped, method="proxies", frames=n),
    )
    return fitted.assign(sd=measure(model, clips.drop(index=list(skipped)), fitted)["value"].std("clip", ddof=1))


@torch.no_grad()
def measure(model, clips, fitted, *, sample_rate=None) -> xr.Dataset:
    """Compute proxies of unedited clips, `value` [clip, layer, proxy], and the acoustic features that they stand for.

    These, `true` [clip, proxy], are RMS, zero crossings per sample and spectral centroid (Hz) of the waveform,
    averaged over the encoder's frames.
    """
    clips = as_clips(clips, sample_rate)
    site_readouts, skipped, values, true = readout_functions(model, fitted), {}, {}, []
    for index, waveform in model.stream(clips, skipped):
        _, outputs = execution.cascade_read(model, waveform, [], site_readouts)
        values[index] = torch.cat([outputs[site] for site in site_readouts]).cpu().numpy()
        centred = audio.without_offset(waveform)
        features = audio.features(centred, model.sample_rate, names=PROXIES, hop=model.hop, span=model.span)
        true.append([features[name].nanmean().item() for name in PROXIES])
    return xr.Dataset(
        {
            "value": (("clip", "layer", "proxy"), np.stack(list(values.values()))),
            "true": (("clip", "proxy"), np.array(true)),
        },
        {**results.coordinates(clips, values), "layer": fitted["layer"], "proxy": list(PROXIES)},
        results.attributes(model, skipped, method="proxies"),
    )


def validity(model, clips, fitted) -> xr.Dataset:
    """Compute how well each proxy tracks the feature it is named after: Spearman's rank correlation within speakers.

    The result [layer, proxy] belongs under every figure of proxies; use other clips than those of `fit`. 1 is a perfect
    proxy; in a model whose blocks end in a layer norm, `rms` and `centroid` cannot be proxies. ``mean``, ``low``,
    ``high`` and ``n`` are over speakers (`statistics.over_speakers`) of three clips or more.
    """

    def rho(value, true):
        return pd.DataFrame({"value": value, "true": true}).corr("spearman", min_periods=3).iloc[0, 1]

    measured = measure(model, clips, fitted)
    speakers = statistics.by_speaker(measured["true"])["speaker"]
    parts = [measured.isel(clip=measured["speaker"].values == name) for name in speakers.values]
    dims = [["clip"], ["clip"]]
    rhos = [xr.apply_ufunc(rho, part["value"], part["true"], input_core_dims=dims, vectorize=True) for part in parts]
    return statistics.over_speakers(xr.concat(rhos, speakers)).assign_attrs(measured.attrs)
