"""What each class gains or loses when a neuron is held at zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from .. import edits, execution, results, statistics, targets
from ..corpora import as_clips
from ..models import require_model

if TYPE_CHECKING:
    from ..models.model import Model


def zero_ablation(
    model: Model,
    clips,
    layer: int,
    neuron: int,
    *,
    part: str = "ffn_hidden",
    scale: str = "log_odds",
    batch: int | None = None,
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Compute the change in each class when one neuron is set to zero.

    Returns
    -------
    Dataset
        `change` [clip, target], edited minus clean, on `scale`; and for each class its change in the clips of that
        class, the clips of each speaker averaged: `mean` [target], `low`, `high` and `n` speakers. Clips that could not
        be used are named in `attrs["skipped"]`.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    targets.check(model, model.labels[0], scale)
    site = model.check((layer, part), neuron)
    plan = [(site, edits.edit(neuron, "zero"))]

    skipped = {}
    changes = {}
    for index, waveform in model.stream(clips, skipped):
        logits = execution.cascade(model, waveform, plan, batch=batch).double()
        changes[index] = _changes(model, logits, scale)
    coords = {**results.coordinates(clips, changes), "target": model.labels}
    change = xr.DataArray(list(changes.values()), coords, ("clip", "target"))

    result = xr.Dataset({"change": change})
    if "label" in coords:
        summary = pd.DataFrame([_summarise_class(change, name) for name in model.labels])
        result = result.assign({name: ("target", summary[name].to_numpy()) for name in summary})
    return result.assign_attrs(results.attributes(model, skipped, layer=layer, neuron=neuron, part=part, scale=scale))


def _changes(model, logits, scale):
    """Return the edited value minus the clean one of each class, from the logits of both, [clean and edited, class]."""
    changes = []
    for target in range(len(model.labels)):
        clean, edited = targets.value(model, logits, (target,), scale)
        changes.append(float(edited - clean))
    return changes


def _summarise_class(change, name):
    """Average the change in a class over speakers, in its own clips; no interval where speakers are not known."""
    class_change = change.sel(target=name).isel(clip=np.flatnonzero(change["label"].values == name))
    if not class_change.size:
        return {"mean": np.nan, "low": np.nan, "high": np.nan, "n": 0}
    class_change = results.units(class_change)
    mean, low, high = statistics.interval(class_change.values)
    if not results.speakers_known(change):
        low = np.nan
        high = np.nan
    return {"mean": mean, "low": low, "high": high, "n": class_change.size}
