"""Long runs that can be stopped and go on: what was computed of each clip is kept in a folder."""

import json
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from . import __version__
from .audio import NoClips


def by_clip(method, model, clips, *, folder, **options):
    """`method(model, clips, **options)`, clip by clip: what another run has computed is taken from `folder`.

    Clips run side by side where joblib is told so, `with joblib.parallel_config(n_jobs=4)` or, on a cluster,
    `backend="dask"`: in processes, since threads would share the hooks. What is kept counts for the same clip (its sound, index and what is known of it), method, options (all but `batch`),
    weights, labels and settings of the model, and modules of xai_lib. The files are pickles: open folders of your own
    only.

    Parameters
    ----------
    method : function
        Gives a Dataset or DataArray, nothing in which is summed over clips, such as `attribution.gradient_shap`.
    folder : str or Path
        Made where it does not exist; delete it to begin anew.

    Returns
    -------
    What `method` returns.

    Raises
    ------
    ValueError
        As `method`, and where it sums over clips.

    References
    ----------
    joblib.Memory, which writes each result beside its place and moves it there, so that a run may be killed any time.
    """
    memory = joblib.Memory(f"{folder}/{__version__}-{joblib.hash([CODE, _state(model)])}", verbose=0)
    one = memory.cache(_one, ignore=["method", "model", "clip", "options"])
    asked = [cloudpickle.dumps(method), {name: _content(x) for name, x in options.items() if name != "batch"}]
    rows = [clips.iloc[[place]] for place in range(len(clips))]
    calls = (joblib.delayed(_attempt)(one, [asked, _content(row)], method, model, row, options) for row in rows)
    every = joblib.Parallel(return_as="generator", prefer="processes")(calls)
    every = [*tqdm(every, total=len(rows), unit="clip", leave=False, delay=2)]
    parts, errors = ([x for x in every if isinstance(x, NoClips) == bad] for bad in (False, True))
    skipped = {index: reason for error in errors for index, reason in error.skipped.items()}
    if not parts:
        raise NoClips(skipped)
    found = _joined(parts)
    return found.assign_attrs(skipped=json.dumps({str(index): reason for index, reason in skipped.items()}))


def _attempt(one, *arguments):
    """What `one` returns, or the error where the clip cannot be used."""
    try:
        return one(*arguments)
    except NoClips as error:
        return error


def _one(key, method, model, clip, options):
    """What is kept, under the key."""
    return method(model, clip, **options)


def _joined(parts):
    """Results of single clips as one; NaN beyond each one's frames."""
    added = {dim for dim in parts[0].dims if dim not in parts[0].coords}
    parts = [part.assign_coords({dim: np.arange(part.sizes[dim]) for dim in added}) for part in parts]
    how = {"coords": "minimal", "compat": "no_conflicts", "join": "outer", "combine_attrs": "override"}
    if isinstance(parts[0], xr.Dataset):
        how["data_vars"] = "minimal"
    try:
        found = xr.concat(parts, "clip", **how)
    except xr.MergeError as error:
        raise ValueError("this method sums over clips, so it cannot go clip by clip: call it by itself") from error
    found = found.drop_vars(added)
    if isinstance(found, xr.Dataset):
        return found.assign({name: found[name].transpose(*values.dims) for name, values in parts[0].items()})
    return found.transpose(*parts[0].dims)


def _content(value):
    """What is hashed of an option: code of functions, sound of clips."""
    if callable(value):
        return cloudpickle.dumps(value)
    if isinstance(value, pd.DataFrame) and "path" in value:
        return value.drop(columns="path"), [_sound(path) for path in value["path"]]
    return value


def _sound(path):
    """Hash of a file, None where there is none."""
    return joblib.hash(Path(path).read_bytes()) if Path(path).is_file() else None


def _state(model):
    """All that decides what a model answers."""
    networks = [x for x in (model.network, model.head) if x is not None]
    state = [{name: x.cpu().numpy() for name, x in network.state_dict().items()} for network in networks]
    return state, model.network.config.to_json_string(), list(map(repr, networks)), model.labels, model.normalise


def _code(folder):
    """Hash of the modules in a folder."""
    return joblib.hash([(path.name, path.read_bytes()) for path in sorted(Path(folder).glob("*.py"))])


CODE = _code(Path(__file__).parent)  # as imported: what is edited later does not run in this process
