"""Proxies of acoustic features, computed from activations [..., frame, neuron], and their agreement with the true ones.

A proxy must be read after the edit: a norm is the same whatever the signs of its neurons, so at the edited site `rms`
and `centroid` are blind to a flip, and so is `zcr` where all frames of all neurons are flipped. Where a block ends in a
layer norm (`model.architecture.norms(1)` is not None, as in wavlm-base), they are nearly blind after every block,
edited or not: it makes the norm nearly the same in all frames, but for its weights.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import audio, execution, hooks, results, statistics
from ..activations import hidden_states
from ..corpora import as_clips
from ..models import require_model

if TYPE_CHECKING:
    from ..models import Model

PROXIES = ("rms", "zcr", "centroid")


def rms(hidden: torch.Tensor) -> torch.Tensor:
    """Compute the L2 norm over neurons, averaged over frames: [..., frame, neuron] to [...]."""
    return torch.linalg.vector_norm(hidden, dim=-1).mean(dim=-1)


def zcr(
    hidden: torch.Tensor, component: torch.Tensor, centre: torch.Tensor, *, frame_seconds: float = 0.02
) -> torch.Tensor:
    """Compute zero crossings per second of the score on one principal component: [..., frame, neuron] to [...].

    `component` and `centre` [neuron] are from `fit`: the same before and after an edit, or they could not be compared.
    """
    positive = (hidden - centre) @ component >= 0
    crossings = positive[..., 1:] != positive[..., :-1]
    return crossings.to(hidden.dtype).mean(dim=-1) / frame_seconds


def centroid(hidden: torch.Tensor, *, frame_seconds: float = 0.02) -> torch.Tensor:
    """Compute the centroid (Hz) of the magnitude spectrum of the norm's time course, its mean removed: [...].

    It lies below 25 Hz with frames of 20 ms: how fast the activation fluctuates, not how bright the voice is.
    NaN where the norm is constant.
    """
    norm = torch.linalg.vector_norm(hidden, dim=-1)
    spectrum = torch.fft.rfft(norm - norm.mean(dim=-1, keepdim=True)).abs()
    hertz = torch.fft.rfftfreq(norm.shape[-1], frame_seconds, device=norm.device, dtype=norm.dtype)
    total = spectrum.sum(dim=-1)
    constant = total <= 1e-6 * norm.sum(dim=-1)  # up to rounding
    mean_hertz = (spectrum * hertz).sum(dim=-1) / torch.where(constant, 1, total)
    return torch.where(constant, torch.nan, mean_hertz)


def readout_functions(model: Model, fitted: xr.Dataset) -> dict:
    """Return readouts for `execution.cascade_read`, at every layer: {Site: [row, frame, neuron] to [row, proxy]}."""
    if (fitted.sizes["layer"], fitted.sizes["neuron"]) != (model.n_layers + 1, model.n_neurons(0)):
        raise ValueError("these proxies were fitted on another model: use activation_proxies.fit(model, clips)")

    def read(component, centre, hidden):
        seconds = model.frame_seconds
        proxies = {
            "rms": rms(hidden),
            "zcr": zcr(hidden, component, centre, frame_seconds=seconds),
            "centroid": centroid(hidden, frame_seconds=seconds),
        }
        return torch.stack([proxies[name] for name in PROXIES], dim=-1)

    component = torch.as_tensor(fitted["component"].values).float().to(model.device)
    centre = torch.as_tensor(fitted["centre"].values).float().to(model.device)
    return {hooks.Site(layer): partial(read, component[layer], centre[layer]) for layer in range(len(centre))}


def fit(model: Model, clips, *, sample_rate: int | None = None) -> xr.Dataset:
    """Fit the first principal component of every layer over the frames of training clips, and measure how clips differ.

    Returns
    -------
    Dataset
        `component`, `centre` [layer, neuron]; `explained`, the component's share of the variance [layer]; `sd` of each
        proxy between clips [layer, proxy]. Two passes over the clips; only sums are kept (float64).
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    skipped = {}
    n = 0
    sums = 0
    products = 0
    for _, hidden, _ in hidden_states(model, clips, model.sites(), skipped):
        values = hidden.cpu().double()  # [layer, frame, neuron]
        n += values.shape[1]
        sums = sums + values.sum(dim=1)
        products = products + values.mT @ values

    centre = sums / n
    covariance = products / n - centre[:, :, None] * centre[:, None, :]
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # in ascending order
    explained = eigenvalues[:, -1] / eigenvalues.sum(dim=-1)
    fitted = xr.Dataset(
        {
            "component": (("layer", "neuron"), eigenvectors[..., -1].numpy()),
            "centre": (("layer", "neuron"), centre.numpy()),
            "explained": ("layer", explained.numpy()),
        },
        {"layer": range(len(centre)), "proxy": list(PROXIES)},
        results.attributes(model, skipped, method="proxies", frames=n),
    )
    measured = measure(model, clips.drop(index=list(skipped)), fitted)
    return fitted.assign(sd=measured["value"].std("clip", ddof=1))


@torch.no_grad()
def measure(model: Model, clips, fitted: xr.Dataset, *, sample_rate: int | None = None) -> xr.Dataset:
    """Compute proxies of unedited clips, `value` [clip, layer, proxy], and the acoustic features that they stand for.

    These, `true` [clip, proxy], are RMS, zero crossings per sample and spectral centroid (Hz) of the waveform,
    averaged over the encoder's frames.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    site_readouts = readout_functions(model, fitted)
    skipped = {}
    values = {}
    true = []
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


def validity(model: Model, clips, fitted: xr.Dataset) -> xr.Dataset:
    """Compute how well each proxy tracks the feature it is named after: Spearman's rank correlation within speakers.

    The result [layer, proxy] belongs under every figure of proxies; use other clips than those of `fit`. 1 is a perfect
    proxy; in a model whose blocks end in a layer norm, `rms` and `centroid` cannot be proxies. ``mean``, ``low``,
    ``high`` and ``n`` are over speakers (`statistics.over_speakers`) of three clips or more.
    """
    measured = measure(model, clips, fitted)
    speakers = statistics.by_speaker(measured["true"])["speaker"]
    rhos = []
    for name in speakers.values:
        of_speaker = measured.isel(clip=measured["speaker"].values == name)
        rho = xr.apply_ufunc(
            _spearman, of_speaker["value"], of_speaker["true"], input_core_dims=[["clip"], ["clip"]], vectorize=True
        )
        rhos.append(rho)
    return statistics.over_speakers(xr.concat(rhos, speakers)).assign_attrs(measured.attrs)


def _spearman(value, true):
    """Return Spearman's rho of two arrays [clip]; NaN with fewer than three clips that have both."""
    return pd.DataFrame({"value": value, "true": true}).corr("spearman", min_periods=3).loc["value", "true"]
