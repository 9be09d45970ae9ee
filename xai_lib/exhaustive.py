"""What the target loses when one neuron alone is edited: every neuron of every layer, one after another."""

import numpy as np
import xarray as xr

from . import edits, execution, targets
from .activations import usable


def exhaustive_ablation(
    model,
    clips,
    *,
    target,
    mode="zero",
    layers="all",
    part="block",
    frames="all",
    scale="log_odds",
    moments=None,
    seed=0,
    batch=None,
) -> xr.Dataset:
    """Edit each neuron of each layer alone, and read what the target loses by it.

    Parameters
    ----------
    target : str, int, or pair
        A class, "predicted" (each clip's own, reported in the coordinate `target`), or a contrast of two.
    mode, frames
        As in `edits.edit`; frames of "speech" are each clip's own. The mode "noise" draws the same for each neuron.
    layers : "all", int or sequence of int
    part : {"block", "attention", "ffn_hidden", "ffn_out"}
    scale : {"log_odds", "logit", "probability"}
        What is explained.
    moments : Dataset, optional
        Of `activations.moments` on training clips, for the same part: needed for the modes "mean" and "noise".
    batch : int, optional
        Edited copies that share a forward.

    Returns
    -------
    Dataset with `signed` and `absolute` [clip, layer, neuron]
        The clean clip's value minus that of the edited one, in units of the scale, and its magnitude. Coordinates on
        `clip`: `target`, `value` (of the clean clip), and what the corpus knows. Clips that could not be used are in
        attrs["skipped"].

    Raises
    ------
    UntrainedHead, ValueError
        A random head; an unknown target, layer, part, mode, frames or scale; `moments` are needed and missing, or of
        something else; not one usable clip.

    Notes
    -----
    All copies of a clip run in the batches of `execution.cascade`, from the layer that is edited upwards. Each equals
    one hooked forward.
    """
    targets.check(model, target, scale)
    sites = model.sites(part, layers)
    if moments is None and mode in ("mean", "noise"):
        raise ValueError(f"{mode} needs moments=activations.moments(model, training clips, part={part!r})")
    training = [{}] * len(sites)
    if moments is not None:
        if (moments.attrs["part"], moments.sizes["neuron"]) != (part, model.n_neurons(sites[0])):
            raise ValueError(f"the moments are of another model, or of {moments.attrs['part']} instead of {part}")
        known = [moments.sel(layer=site.layer) for site in sites]
        training = [{"means": at["mean"].values, "stds": at["std"].values} for at in known]
    skipped, rows, about = {}, {}, []
    spoken = isinstance(frames, str) and frames == "speech"
    for index, waveform, speech in usable(model, clips, "speech" if spoken else "all", skipped):
        options = {"mode": mode, "frames": frames, "speech": speech, "seed": seed}
        rows[index], *found = _losses(model, waveform, sites, training, options, target, scale, batch)
        about.append(found)
    names, values = zip(*about)
    signed, dims = np.stack(list(rows.values())), ("clip", "layer", "neuron")
    frames = frames if isinstance(frames, str) else str(np.asarray(frames).tolist())
    made = {"mode": mode, "part": part, "frames": frames, "scale": scale, "seed": seed}
    return xr.Dataset(
        {"signed": (dims, signed), "absolute": (dims, np.abs(signed))},
        {**targets.coordinates(clips, rows, target=list(names), value=list(values)), **targets.axes(sites, signed)},
        targets.attributes(model, skipped, method="exhaustive_ablation", **made),
    )


def _losses(model, waveform, sites, training, options, target, scale, batch):
    """Of one clip: what the target loses [layer, neuron], its name, and its value in the clean clip."""
    plan = [
        (site, edits.edit(neuron, **options, **known))
        for site, known in zip(sites, training)
        for neuron in range(model.n_neurons(site))
    ]
    logits = execution.cascade(model, waveform, plan, batch=batch).double()
    classes = targets.resolve(model, target, logits[:1])
    value = targets.value(logits, classes, scale)
    lost = (value[0] - value[1:]).reshape(len(sites), -1)
    return lost.float().cpu().numpy(), targets.name(model, classes), value[0].item()
