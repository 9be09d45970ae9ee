"""All that is known of one neuron, and what zeroing it changes."""

import numpy as np
import pandas as pd
import xarray as xr

from .. import edits, execution, results, statistics, targets
from ..corpora import as_clips
from . import descriptions


def zeroed(
    model, clips, layer, neuron, *, part="ffn_hidden", scale="log_odds", batch=None, sample_rate=None
) -> xr.Dataset:
    """What each class gains or loses when one neuron is held at zero.

    Returns
    -------
    Dataset
        `change` [clip, target], edited less clean, on `scale`; and of each class its change in its own clips, the clips
        of each speaker averaged: `mean` [target], `low`, `high` and `n` speakers. Clips that could not be used are named
        in `attrs["skipped"]`.
    """
    clips = as_clips(clips, sample_rate)
    targets.check(model, model.labels[0], scale)
    plan, skipped, rows = [(model.check((layer, part), neuron), edits.edit(neuron, "zero"))], {}, {}
    for index, waveform in model.stream(clips, skipped):
        logits = execution.cascade(model, waveform, plan, batch=batch).double()
        values = [targets.value(model, logits, (c,), scale) for c in range(len(model.labels))]
        rows[index] = [float(value[1] - value[0]) for value in values]
    coords = {**results.coordinates(clips, rows), "target": model.labels}
    change, own = xr.DataArray(list(rows.values()), coords, ("clip", "target")), []
    for name in model.labels if "label" in coords else ():
        one = change.sel(target=name).isel(clip=np.flatnonzero(change["label"].values == name))
        units = results.units(one) if one.size else one
        own.append([*statistics.interval(units.values), units.size] if one.size else [np.nan] * 3 + [0])
    parts = {key: ("target", list(x)) for key, x in zip(("mean", "low", "high", "n"), zip(*own))}
    if not results.speakers_known(change):
        parts |= {key: ("target", np.full(len(own), np.nan)) for key in ("low", "high") if own}
    made = {"layer": layer, "neuron": neuron, "part": part, "scale": scale}
    return xr.Dataset({"change": change, **parts}, attrs=results.attributes(model, skipped, **made))


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
    zeroed=None,
) -> dict:
    """All that is known of one neuron, for `plots.neuron_card` and `widgets.NeuronCard`; None of what is not given.

    Parameters
    ----------
    part : str, optional
        Where the results are of several parts.
    described, named, held : Dataset
        Of `describe`, `identify` and `predictivity`.
    summaries : DataArray or Series of str by neuron
        Descriptions in a model's words.
    selective : Dataset, or {what: Dataset}
        Of `selectivity`, by label or by several coordinates.
    test : Dataset
        Of `activations` of clips not described from.
    exemplars : DataFrame
        Of `snippets`.
    zeroed : Dataset
        Of `zeroed`, on clips not described from.
    """
    here = {"layer": layer, "neuron": neuron}

    def at(found):
        return None if found is None else found.sel(here | ({"part": part} if "unit" in found.dims else {}))

    z, null_z, foretold = None, None, at(held)
    if described is not None:
        z, null_z = at(described["z"]), float(np.abs(at(described["null"])).max("word").quantile(0.95))
    least = {} if held is None else {"least": held.attrs["least"]}
    if isinstance(summaries, pd.Series):
        summaries = {at: text for at, text in summaries.items()}.get((part, layer, neuron)[-summaries.index.nlevels :])
    elif summaries is not None:
        summaries = at(summaries).item()
    if isinstance(selective, xr.Dataset):
        selective = {selective.attrs["by"]: selective}
    return {
        **here,
        "part": part,
        "z": z,
        "null_z": null_z,
        "sentence": None if z is None else descriptions.sentence(z, **least),
        "summary": summaries,
        "named": at(named),
        "selective": {by: at(found) for by, found in (selective or {}).items()},
        **{key: None if held is None else float(foretold[key]) for key in ("rho", "p", "q")},
        "test": None if test is None else at(test["activation"]),
        "exemplars": exemplars,
        "zeroed": zeroed,
    }
