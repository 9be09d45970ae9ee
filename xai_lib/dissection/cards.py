"""Neuron cards: what is known of one neuron, from the results of the other functions."""

import numpy as np
import pandas as pd
import xarray as xr

from . import descriptions


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
