"""Exemplars: the clips, and the frames in them, that drive a neuron most and least."""

import numpy as np
import pandas as pd
import torch

from .. import execution, hooks, results
from ..corpora import as_clips
from ..models import require_model
from .extraction import frame_selector


def exemplars(activations, layer, neuron, k=5, *, part=None) -> pd.DataFrame:
    """Return the k clips that drive a neuron most ("high", strongest first) and least ("low", weakest first).

    `part` names the part, where `activations` are of several. The table is indexed by clip: `end`, `activation`, and
    the metadata of the clip.

    Examples
    --------
    >>> from xai_lib import activations, corpora, dissection, models
    >>> clips = corpora.balanced(corpora.load("sample"), 8)
    >>> result = activations.activations(models.load("pocket"), clips, "hidden_state")
    >>> table = dissection.exemplars(result, layer=4, neuron=48, k=2)
    >>> table["end"].tolist()
    ['high', 'high', 'low', 'low']
    """
    activations, selection = results.as_activation(activations), {"layer": layer, "neuron": neuron}
    if "unit" in activations.dims:
        if part is None:
            parts = ", ".join(dict.fromkeys(activations["part"].values))
            raise ValueError(f"these are activations of several parts: choose one of {parts} with part=")
        selection["part"] = part
    for name, value in selection.items():
        if value not in activations[name].values:
            raise ValueError(f"{name} {value!r} is not in these activations")
    values = activations.sel(selection)
    metadata = {
        name: values[name].values for name in values.coords if values[name].dims == ("clip",) and name != "clip"
    }
    table = pd.DataFrame({"activation": values.values, **metadata}, index=values["clip"].to_numpy())
    table = table.sort_values("activation", kind="stable")
    k = max(min(k, len(table) // 2), 1)
    high, low = table[::-1][:k].assign(end="high"), table[:k].assign(end="low")
    return pd.concat([high, low]).rename_axis("clip")


def snippets(
    model, clips, table, layer, neuron, *, part="ffn_hidden", half=0.5, frames="speech", sample_rate=None
) -> pd.DataFrame:
    """Find where in each exemplar the neuron peaks (in "low" ones: dips), and cut out `half` seconds to either side.

    The table is `table`, as returned by `exemplars`, with `peak`, `start` and `stop` in seconds, and `waveform`, that
    stretch of sound, added.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    site, rows = model.check((layer, part), neuron), []
    for index, waveform in model.stream(clips.loc[table.index]):
        values, keep = _activation_by_frame(model, waveform, site, neuron, frames)
        frame = np.where(keep, values if table.loc[index, "end"] == "high" else -values, -np.inf).argmax()
        peak, length = model.times(waveform, len(values))[frame], len(waveform) / model.sample_rate
        start, stop = max(peak - half, 0), min(peak + half, length)
        stretch = waveform[int(start * model.sample_rate) : int(stop * model.sample_rate)]
        rows.append({"peak": peak, "start": start, "stop": stop, "waveform": stretch})
    return pd.concat([table, pd.DataFrame(rows, index=table.index)], axis=1)


def top_frames(
    model, clips, layer, neuron, k=5, *, part="ffn_hidden", half=0.5, frames="speech", sample_rate=None
) -> pd.DataFrame:
    """Return the k clips with the strongest single frames of a neuron, strongest first, and where those are.

    One pass over the clips, in which only the k best are held. The table is as returned by `snippets`; `activation` is
    that of the frame. Where `activations(…, pool="max")` are at hand, their `exemplars` are the same clips without a
    pass. Clips that cannot be used are left out, with a warning.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    site, best = model.check((layer, part), neuron), []
    for position, (index, waveform) in enumerate(model.stream(clips, {})):
        values, keep = _activation_by_frame(model, waveform, site, neuron, frames)
        best = sorted([*best, (float(values[keep].max()), -position, index)], reverse=True)[:k]
    strongest, _, names = zip(*best)
    metadata = {
        name: coordinate[-1] for name, coordinate in results.coordinates(clips, names).items() if name != "clip"
    }
    table = pd.DataFrame({"activation": strongest, **metadata, "end": "high"}, index=list(names)).rename_axis("clip")
    return snippets(model, clips, table, layer, neuron, part=part, half=half, frames=frames)


@torch.no_grad()
def _activation_by_frame(model, waveform, site, neuron, frames):
    """Return a neuron's activation in each frame of a clip, and which frames count; the forward ends where it can."""
    with hooks.capture(model, site) as seen:
        if model.architecture.resumable and site.part != "module":
            execution.prefix(model, model.tensor(waveform), site.layer)
        else:
            model.logits(model.tensor(waveform))
    values = seen[site][0, :, neuron].cpu().numpy()
    return values, frame_selector(model, waveform, frames)(len(values)).cpu().numpy()
