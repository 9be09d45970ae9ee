"""What each class gains or loses when a neuron is held at zero."""

import numpy as np
import xarray as xr

from .. import edits, execution, results, statistics, targets
from ..corpora import as_clips


def zero_ablation(
    model, clips, layer, neuron, *, part="ffn_hidden", scale="log_odds", batch=None, sample_rate=None
) -> xr.Dataset:
    """Compute the change in each class when one neuron is set to zero.

    Returns
    -------
    Dataset
        `change` [clip, target], edited minus clean, on `scale`; and for each class its change in the clips of that
        class, the clips of each speaker averaged: `mean` [target], `low`, `high` and `n` speakers. Clips that could not
        be used are named in `attrs["skipped"]`.
    """
    clips = as_clips(clips, sample_rate)
    targets.check(model, model.labels[0], scale)
    plan, skipped, rows = [(model.check((layer, part), neuron), edits.edit(neuron, "zero"))], {}, {}
    for index, waveform in model.stream(clips, skipped):
        logits = execution.cascade(model, waveform, plan, batch=batch).double()
        values = [targets.value(model, logits, (target,), scale) for target in range(len(model.labels))]
        rows[index] = [float(value[1] - value[0]) for value in values]
    coords = {**results.coordinates(clips, rows), "target": model.labels}
    change, class_summaries = xr.DataArray(list(rows.values()), coords, ("clip", "target")), []
    for name in model.labels if "label" in coords else ():
        class_change = change.sel(target=name).isel(clip=np.flatnonzero(change["label"].values == name))
        units = results.units(class_change) if class_change.size else class_change
        class_summaries.append(
            [*statistics.interval(units.values), units.size] if class_change.size else [np.nan] * 3 + [0]
        )
    parts = {key: ("target", list(column)) for key, column in zip(("mean", "low", "high", "n"), zip(*class_summaries))}
    if not results.speakers_known(change):
        parts |= {key: ("target", np.full(len(class_summaries), np.nan)) for key in ("low", "high") if class_summaries}
    options = {"layer": layer, "neuron": neuron, "part": part, "scale": scale}
    return xr.Dataset({"change": change, **parts}, attrs=results.attributes(model, skipped, **options))
