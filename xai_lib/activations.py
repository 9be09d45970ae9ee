"""What each neuron does on each clip, from one forward per clip; the clips and moments that drive a neuron most."""

import numpy as np
import pandas as pd
import torch
import xarray as xr

from . import audio, execution, hooks, targets


def usable(model, clips, frames, skipped, *, silent="skip"):
    """Yield (index, waveform, bool [frame]: which count) of the clips that can be read; the others go to `skipped`.

    `frames` is "all" or "speech" (`audio.speech_mask`), or numbers of frames, which all count where a clip has them. A
    clip in which no speech is found is skipped, unless with `silent="all"`, when all its frames count; so is one without
    the frames. NoClips where not one is usable.
    """
    asked = np.zeros(0, int) if isinstance(frames, str) else np.atleast_1d(frames)
    if isinstance(frames, str) and frames not in ("all", "speech"):
        raise ValueError(f'unknown frames {frames!r}: "all" or "speech"')
    for index, waveform in model.stream(clips, skipped):
        spoken = isinstance(frames, str) and frames == "speech"
        keep = model.speech(waveform) if spoken else np.ones(model.n_frames(len(waveform)), bool)
        wrong = asked[(asked < 0) | (asked >= len(keep))]
        if len(wrong):
            skipped[index] = f"frame {wrong[0]} out of range: the clip has 0–{len(keep) - 1}"
            continue
        if silent == "all" and not keep.any():
            keep[:] = True
        if keep.any():
            yield index, waveform, keep
        else:
            skipped[index] = "no speech was found in it: use frames='all'"
    if skipped and len(skipped) == len(clips):
        raise audio.NoClips(skipped)


@torch.no_grad()
def hidden_states(model, clips, sites, skipped, *, frames="all"):
    """Yield (index, hidden [site, frame, neuron], logits [label]) of each clip, at the frames that count.

    Where a clip has no speech, all its frames do; clips that cannot be read go to `skipped`.
    """
    for index, waveform, keep in usable(model, clips, frames, skipped, silent="all"):
        with hooks.capture(model, sites) as seen:
            logits = model.logits(model.tensor(waveform))
        yield index, torch.stack([seen[site][0, keep] for site in sites]), logits[0]


def activations(model, clips, *, part="ffn_hidden", layers="all", frames="speech") -> xr.Dataset:
    """The mean of each neuron over the frames of each clip, and the logits.

    Parameters
    ----------
    part : {"block", "attention", "ffn_hidden", "ffn_out"}
    layers : "all", int or sequence of int
    frames : {"speech", "all"}
        Which frames count; where a clip has no speech, all do.

    Returns
    -------
    Dataset
        `activation` [clip, layer, neuron], `logit` [clip, target] and `magnitude` [layer, neuron], the mean of
        |activation| over frames and then clips. Clips that could not be used are named in `attrs["skipped"]`.
    """
    sites, skipped, rows, logits, magnitude = model.sites(part, layers), {}, {}, [], 0
    for index, hidden, found in hidden_states(model, clips, sites, skipped, frames=frames):
        rows[index] = hidden.mean(1).cpu().numpy()
        magnitude = magnitude + hidden.abs().mean(1).cpu().numpy()
        logits.append(found.cpu().numpy())
    return xr.Dataset(
        {
            "activation": (("clip", "layer", "neuron"), np.stack(list(rows.values()))),
            "logit": (("clip", "target"), np.stack(logits)),
            "magnitude": (("layer", "neuron"), magnitude / len(rows)),
        },
        {**targets.coordinates(clips, rows), **targets.axes(sites, magnitude), "target": model.labels},
        targets.attributes(model, skipped, part=part, frames=frames),
    )


def moments(model, clips, *, part="block") -> xr.Dataset:
    """`mean`, `std` and mean `magnitude` |activation| of every neuron [layer, neuron] over all frames of clips.

    Modes "mean" and "noise" of an edit and the matched null need those of the training clips.
    """
    sites, skipped, n, sums = model.sites(part), {}, 0, 0
    for _, hidden, _ in hidden_states(model, clips, sites, skipped):
        hidden, n = hidden.cpu().double(), n + hidden.shape[1]
        sums = sums + torch.stack([hidden.sum(1), hidden.square().sum(1), hidden.abs().sum(1)])
    mean, square, magnitude = (sums / n).numpy()
    data = {"mean": mean, "std": np.sqrt(np.maximum(square - mean**2, 0)), "magnitude": magnitude}
    return xr.Dataset(
        {name: (("layer", "neuron"), values) for name, values in data.items()},
        targets.axes(sites, mean),
        targets.attributes(model, skipped, method="moments", part=part, frames=n),
    )


def check_moments(moments, model, part, needed_by=None) -> None:
    """Refuse (ValueError) `moments` of another model or part, or None where `needed_by`, such as "mean", needs them."""
    if moments is None:
        if needed_by:
            made = f"moments=activations.moments(model, training clips, part={part!r})"
            raise ValueError(f"{needed_by} needs {made}")
    elif moments.attrs["part"] != part:
        raise ValueError(f"the moments are of {moments.attrs['part']} instead of {part}")
    elif (moments.attrs["model"], moments.sizes["neuron"]) != (model.name, model.family.width(part)):
        raise ValueError(f"the moments are of another model, {moments.attrs['model']}, and not of {model.name}")


def exemplars(activations, layer, neuron, k=5) -> pd.DataFrame:
    """The k clips that drive a neuron most ("high", strongest first) and least ("low", weakest first).

    The table is indexed by clip: `end`, `activation`, and what is known of the clip.
    """
    values = activations.sel(layer=layer, neuron=neuron)
    known = {name: values[name].values for name in values.coords if values[name].dims == ("clip",) and name != "clip"}
    table = pd.DataFrame({"activation": values.values, **known}, index=values["clip"].to_numpy())
    table = table.sort_values("activation", kind="stable")
    k = max(min(k, len(table) // 2), 1)
    high, low = table[::-1][:k].assign(end="high"), table[:k].assign(end="low")
    return pd.concat([high, low]).rename_axis("clip")


def snippets(model, clips, table, layer, neuron, *, part="ffn_hidden", half=0.5, frames="speech") -> pd.DataFrame:
    """Where in each exemplar the neuron peaks (in "low" ones: dips), and `half` seconds to either side.

    It adds to `table`, of `exemplars`, `peak`, `start` and `stop` in seconds, and `waveform`, that stretch of sound.
    """
    site, found = model.check((layer, part), neuron), []
    for index, waveform, keep in usable(model, clips.loc[table.index], frames, None, silent="all"):
        with torch.no_grad(), hooks.capture(model, site) as kept:
            execution.prefix(model, model.tensor(waveform), site.layer)
        values = kept[site][0, :, neuron].cpu().numpy() * (1 if table.loc[index, "end"] == "high" else -1)
        at = np.where(keep, values, -np.inf).argmax()
        peak = audio.frame_times(len(values), model.sample_rate, hop=model.hop, span=model.span)[at]
        start, stop = max(peak - half, 0), min(peak + half, len(waveform) / model.sample_rate)
        cut = waveform[int(start * model.sample_rate) : int(stop * model.sample_rate)]
        found.append({"peak": peak, "start": start, "stop": stop, "waveform": cut})
    return pd.concat([table, pd.DataFrame(found, index=table.index)], axis=1)
