"""The clips and the moments that drive a neuron most and least."""

import numpy as np
import pandas as pd
import torch

from .. import execution, hooks, results
from ..corpora import as_clips
from .extraction import counting


def exemplars(activations, layer, neuron, k=5, *, part=None) -> pd.DataFrame:
    """The k clips that drive a neuron most ("high", strongest first) and least ("low", weakest first).

    `part` says of which part, where `activations` are of several. The table is indexed by clip: `end`, `activation`,
    and what is known of the clip.
    """
    activations, where = results.activity(activations), {"layer": layer, "neuron": neuron}
    if "unit" in activations.dims:
        if part is None:
            known = ", ".join(dict.fromkeys(activations["part"].values))
            raise ValueError(f"these are activations of several parts: say which of {known} with part=")
        where["part"] = part
    for name, value in where.items():
        if value not in activations[name].values:
            raise ValueError(f"there is no {name} {value!r} in these activations")
    values = activations.sel(where)
    known = {name: values[name].values for name in values.coords if values[name].dims == ("clip",) and name != "clip"}
    table = pd.DataFrame({"activation": values.values, **known}, index=values["clip"].to_numpy())
    table = table.sort_values("activation", kind="stable")
    k = max(min(k, len(table) // 2), 1)
    high, low = table[::-1][:k].assign(end="high"), table[:k].assign(end="low")
    return pd.concat([high, low]).rename_axis("clip")


def snippets(
    model, clips, table, layer, neuron, *, part="ffn_hidden", half=0.5, frames="speech", sample_rate=None
) -> pd.DataFrame:
    """Where in each exemplar the neuron peaks (in "low" ones: dips), and `half` seconds to either side.

    It adds to `table`, of `exemplars`, `peak`, `start` and `stop` in seconds, and `waveform`, that stretch of sound.
    """
    clips = as_clips(clips, sample_rate)
    site, found = model.check((layer, part), neuron), []
    for index, waveform in model.stream(clips.loc[table.index]):
        values, keep = _course(model, waveform, site, neuron, frames)
        at = np.where(keep, values if table.loc[index, "end"] == "high" else -values, -np.inf).argmax()
        peak, length = model.times(waveform, len(values))[at], len(waveform) / model.sample_rate
        start, stop = max(peak - half, 0), min(peak + half, length)
        cut = waveform[int(start * model.sample_rate) : int(stop * model.sample_rate)]
        found.append({"peak": peak, "start": start, "stop": stop, "waveform": cut})
    return pd.concat([table, pd.DataFrame(found, index=table.index)], axis=1)


def top_frames(
    model, clips, layer, neuron, k=5, *, part="ffn_hidden", half=0.5, frames="speech", sample_rate=None
) -> pd.DataFrame:
    """The k clips with the strongest single frames of a neuron, strongest first, and where those are.

    One pass, of which only the k best are kept. The table is as of `snippets`; `activation` is that of the frame. Where
    `activations(…, pool="max")` is at hand, its `exemplars` are the same clips without a pass. Clips that cannot be
    used are left out, with a warning.
    """
    clips = as_clips(clips, sample_rate)
    site, best = model.check((layer, part), neuron), []
    for place, (index, waveform) in enumerate(model.stream(clips, {})):
        values, keep = _course(model, waveform, site, neuron, frames)
        best = sorted([*best, (float(values[keep].max()), -place, index)], reverse=True)[:k]
    strongest, _, names = zip(*best)
    about = {name: x[-1] for name, x in results.coordinates(clips, names).items() if name != "clip"}
    table = pd.DataFrame({"activation": strongest, **about, "end": "high"}, index=list(names)).rename_axis("clip")
    return snippets(model, clips, table, layer, neuron, part=part, half=half, frames=frames)


@torch.no_grad()
def _course(model, waveform, site, neuron, frames):
    """What a neuron does in each frame of a clip, and which of them count; the forward ends where it can."""
    with hooks.capture(model, site) as seen:
        if model.family.resumable and site.part != "module":
            execution.prefix(model, model.tensor(waveform), site.layer)
        else:
            model.logits(model.tensor(waveform))
    values = seen[site][0, :, neuron].cpu().numpy()
    return values, counting(model, waveform, frames)(len(values)).cpu().numpy()
