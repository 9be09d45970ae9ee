"""Summary of the results for one neuron, and the effect of zeroing it."""

import numpy as np
import pandas as pd
import xarray as xr

from .. import edits, execution, results, statistics, targets
from ..corpora import as_clips
from . import descriptions


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


def card(
    layer,
    neuron,
    *,
    part=None,
    described=None,
    summaries=None,
    named=None,
    held=None,
    selective=None,
    test=None,
    exemplars=None,
    zero_ablation=None,
) -> dict:
    """Collect the results for one neuron, for `plots.neuron_card` and `widgets.NeuronCard`; None for those not passed.

    Parameters
    ----------
    part : str, optional
        Needed where the results cover several parts.
    described, named, held : Dataset
        As returned by `describe`, `identify` and `predictivity`.
    summaries : DataArray or Series of str by neuron
        Descriptions written by a language model.
    selective : Dataset, or {coordinate: Dataset}
        As returned by `selectivity`, by label or by several coordinates.
    test : Dataset
        As returned by `activations`, of clips that were not used for the description.
    exemplars : DataFrame
        As returned by `snippets`.
    zero_ablation : Dataset
        As returned by `zero_ablation`, on clips that were not used for the description.
    """
    coords = {"layer": layer, "neuron": neuron}

    def select(result):
        return None if result is None else result.sel(coords | ({"part": part} if "unit" in result.dims else {}))

    z, chance_z, prediction = None, None, select(held)
    if described is not None:
        z, chance_z = select(described["z"]), float(np.abs(select(described["chance"])).max("word").quantile(0.95))
    threshold = {} if held is None else {"min_z": held.attrs["min_z"]}
    if isinstance(summaries, pd.Series):
        summaries = {index: text for index, text in summaries.items()}.get(
            (part, layer, neuron)[-summaries.index.nlevels :]
        )
    elif summaries is not None:
        summaries = select(summaries).item()
    if isinstance(selective, xr.Dataset):
        selective = {selective.attrs["by"]: selective}
    return {
        **coords,
        "part": part,
        "z": z,
        "chance_z": chance_z,
        "sentence": None if z is None else descriptions.sentence(z, **threshold),
        "summary": summaries,
        "named": select(named),
        "selective": {coordinate: select(result) for coordinate, result in (selective or {}).items()},
        **{key: None if held is None else float(prediction[key]) for key in ("rho", "p", "q")},
        "test": None if test is None else select(test["activation"]),
        "exemplars": exemplars,
        "zero_ablation": zero_ablation,
    }
