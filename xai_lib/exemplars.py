"""What a model computes on each clip, one number a neuron, and the clips and moments that drive a neuron most."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import xarray as xr

from . import audio, execution, hooks, targets
from .families import Site


@torch.no_grad()
def activations(model, clips, *, part="ffn_hidden", layers="all", frames="speech") -> xr.Dataset:
    """The mean over the frames of each clip of each neuron, and the logits, in one forward per clip.

    Parameters
    ----------
    clips : DataFrame
    part : {"block", "attention", "ffn_hidden", "ffn_out"}
    layers : "all" or sequence of int
    frames : {"speech", "all"}
        Which frames count; where a clip has no speech, all do.

    Returns
    -------
    Dataset
        `activation` [clip, layer, neuron], `logit` [clip, target] and `magnitude` [layer, neuron], the mean of
        |activation| over frames and clips. Clips that could not be used are named in `attrs["skipped"]`.
    """
    if frames not in ("speech", "all"):
        raise ValueError(f'unknown frames {frames!r}: "all" or "speech"')
    sites = [s for s in model.sites((part,)) if layers == "all" or s.layer in list(layers)]
    if layers != "all" and len(sites) != len(set(layers)):
        raise ValueError(f"layers {list(layers)}: this model has {part} in {[s.layer for s in model.sites((part,))]}")
    skipped, rows, logits, magnitude = {}, {}, [], 0
    with hooks.capture(model, sites) as kept:
        for index, waveform in audio.stream(clips, model.sample_rate, shortest=model.span, skipped=skipped):
            logits.append(model.logits(model.tensor(waveform))[0].cpu().numpy())
            counted = _counted(model, waveform, frames).to(model.device)
            hidden = torch.stack([kept[site][0, counted] for site in sites], dim=1)
            rows[index] = hidden.mean(0).cpu().numpy()
            magnitude = magnitude + hidden.abs().mean(0).cpu().numpy()
    return xr.Dataset(
        {
            "activation": (("clip", "layer", "neuron"), np.stack(list(rows.values()))),
            "logit": (("clip", "target"), np.stack(logits)),
            "magnitude": (("layer", "neuron"), magnitude / len(rows)),
        },
        {**targets.coordinates(clips, rows), "layer": [s.layer for s in sites], "target": model.labels},
        targets.attributes(model, skipped, part=part, frames=frames),
    )


def exemplars(activations, layer, neuron, k=5) -> pd.DataFrame:
    """The k clips that drive a neuron most ("high", strongest first) and least ("low", weakest first).

    Returns
    -------
    DataFrame indexed by clip: `end`, `activation`, and what is known of the clip.
    """
    values = activations.sel(layer=layer, neuron=neuron)
    known = {name: values[name].values for name in values.coords if values[name].dims == ("clip",) and name != "clip"}
    table = pd.DataFrame({"activation": values.values, **known}, index=values["clip"].to_numpy())
    table = table.sort_values("activation", kind="stable")
    k = max(min(k, len(table) // 2), 1)
    high, low = table[::-1][:k].assign(end="high"), table[:k].assign(end="low")
    return pd.concat([high, low]).rename_axis("clip")


@torch.no_grad()
def snippets(model, clips, table, layer, neuron, *, part="ffn_hidden", half=0.5, frames="speech") -> pd.DataFrame:
    """Where in each exemplar the neuron peaks (in "low" ones: dips), and `half` seconds to either side.

    Parameters
    ----------
    table : DataFrame
        Of `exemplars`.

    Returns
    -------
    DataFrame
        `table` with `peak`, `start` and `stop` in seconds, and `waveform`, that stretch of sound.
    """
    site, found = model.check(Site(layer, part), neuron), []
    for index, waveform in audio.stream(clips.loc[table.index], model.sample_rate, shortest=model.span):
        with hooks.capture(model, site) as kept:  # no need to run the layers above
            state = execution.prefix(model, model.tensor(waveform), site.layer)
        hidden = state.hidden if part == "block" else kept[site]
        values = hidden[0, :, neuron].cpu().numpy()
        spoken = _counted(model, waveform, frames).numpy()
        values = np.where(spoken, values if table.loc[index, "end"] == "high" else -values, -np.inf)
        peak = audio.frame_times(len(values), model.sample_rate, hop=model.hop, span=model.span)[values.argmax()]
        start, stop = max(peak - half, 0), min(peak + half, len(waveform) / model.sample_rate)
        cut = waveform[int(start * model.sample_rate) : int(stop * model.sample_rate)]
        found.append({"peak": peak, "start": start, "stop": stop, "waveform": cut})
    return pd.concat([table, pd.DataFrame(found, index=table.index)], axis=1)


def _counted(model, waveform, frames):
    """Which frames count: those of speech, or all where there is none."""
    spoken = audio.speech_mask(waveform, model.sample_rate, hop=model.hop, span=model.span)
    return torch.from_numpy(spoken if frames == "speech" and spoken.any() else np.ones_like(spoken))
