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

    What is kept counts for the same clip (its sound, index and what is known of it), method, options (all but `batch`),
    weights, labels and settings of the model, and modules of xai_lib. The files are pickles: open folders of your own
    only.

    Parameters
    ----------
    method : function
        Gives a Dataset or DataArray of which all is of single clips, such as `attribution.gradient_shap`.
    folder : str or Path
        Made where it does not exist; delete it to begin anew.

    Returns
    -------
    What `method` returns.

    Raises
    ------
    ValueError
        As `method`, and if it gives something that is not of single clips.

    References
    ----------
    joblib.Memory, which writes each result beside its place and moves it there, so that a run may be killed any time.
    """
    memory = joblib.Memory(f"{folder}/{__version__}-{joblib.hash([CODE, _state(model)])}", verbose=0)
    one = memory.cache(_one, ignore=["method", "model", "clip", "options"])
    asked = [cloudpickle.dumps(method), {name: _content(x) for name, x in options.items() if name != "batch"}]
    parts, skipped = [], {}
    for place, index in enumerate(tqdm(clips.index, unit="clip", leave=False, delay=2)):
        clip = clips.iloc[[place]]
        try:
            parts.append(one([asked, _content(clip)], method, model, clip, options))
        except NoClips as error:
            skipped |= error.skipped
    if not parts:
        raise NoClips(skipped)
    found = _joined(parts)
    return found.assign_attrs(skipped=json.dumps({str(index): reason for index, reason in skipped.items()}))


def _one(key, method, model, clip, options):
    """What is kept, under the key."""
    found = method(model, clip, **options)
    every = found.data_vars.values() if isinstance(found, xr.Dataset) else [found]
    if not all("clip" in values.dims for values in every):
        raise ValueError(f"{method.__name__} gives more than results of single clips: call it without by_clip")
    return found


def _joined(parts):
    """Results of single clips as one; NaN beyond each one's frames."""
    added = {dim for dim in parts[0].dims if dim not in parts[0].coords}
    parts = [part.assign_coords({dim: np.arange(part.sizes[dim]) for dim in added}) for part in parts]
    found = xr.concat(parts, "clip", coords="minimal", compat="no_conflicts", join="outer", combine_attrs="override")
    return found.drop_vars(added).transpose(*parts[0].dims)


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
