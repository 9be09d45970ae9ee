"""Long runs that can be stopped and go on: what was computed of each clip is kept in a folder."""

import inspect
import json
import pickle
import warnings
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from types import CodeType, FunctionType

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import torch
import xarray as xr
from tqdm.auto import tqdm

from .. import __version__
from ..audio import Encoded, NoClips, Waveform, sources
from ..corpora import as_clips


def by_clip(method, model, clips, *, folder, sample_rate=None, **options):
    """`method(model, clips, **options)`, clip by clip: what another run has computed is taken from `folder`.

    Clips run side by side where joblib is told so, `with joblib.parallel_config(n_jobs=4)` or, on a cluster that shares
    the folder, `backend="dask"`: in processes, since threads would share the hooks. It is worth it where a clip takes
    longer than the start of a process, some ten seconds.

    What is kept counts for the same clip (its sound, index and what is known of it), method, options (all but `batch`;
    functions by their code), weights, labels and settings of the model, kind of device, and code of xai_lib, torch and
    transformers. Files that a method reads beside the clip are not seen. The files are pickles: open folders of your
    own only.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    method : function
        Gives a Dataset or DataArray of single clips, nothing in which is summed over clips, such as
        `attribution.gradient_shap`.
    folder : str or Path
        Made where it does not exist; delete it to begin anew.

    Returns
    -------
    What `method` returns.

    Raises
    ------
    ValueError
        As `method`, where it sums over clips, and inside of `hooks.edit`, which what is kept could not tell.

    References
    ----------
    joblib.Memory, which writes each result beside its place and moves it there, so that a run may be killed any time.
    """
    clips = as_clips(clips, sample_rate)
    model.require_unedited()
    memory = joblib.Memory(f"{folder}/{__version__}-{joblib.hash([CODE, state(model)])}", verbose=0)
    one = memory.cache(_one, ignore=["method", "model", "clip", "options"])
    asked = [content(method), {name: content(x) for name, x in options.items() if name != "batch"}]
    rows = [clips.iloc[[place]] for place in range(len(clips))]
    keys = [[asked, content(row)] for row in rows]
    lacking = [i for i, row in enumerate(rows) if not one.check_call_in_cache(keys[i], method, model, row, options)]
    run = joblib.Parallel(return_as="generator", prefer="processes")
    sent = model if run.n_jobs == 1 else _Sent(model, memory.location)
    calls = (joblib.delayed(_attempt)(one, keys[i], method, sent, rows[i], options) for i in lacking)
    failed = [error for error in tqdm(run(calls), total=len(lacking), unit="clip", leave=False, delay=2) if error]
    skipped = {index: reason for error in failed for index, reason in error.skipped.items()}
    parts = [one(key, method, model, row, options) for key, row in zip(keys, rows) if row.index[0] not in skipped]
    if not len(clips):
        raise ValueError("there are no clips: the selection is empty")
    if not parts:
        raise NoClips(skipped)
    if skipped:
        named = f"{len(skipped)} of {len(clips)} clips were skipped, e.g. {next(iter(skipped.values()))}"
        warnings.warn(named, stacklevel=2)
    found = _joined(parts)
    return found.assign_attrs(skipped=json.dumps({str(index): reason for index, reason in skipped.items()}))


def _attempt(one, *arguments):
    """Keep what `one` returns; the error where the clip cannot be used."""
    try:
        one(*arguments)
    except NoClips as error:
        return error


def _one(key, method, model, clip, options):
    """What is kept, under the key."""
    return method(model, clip, **options)


class _Sent:
    """A model on its way to other processes: written once, and read once by each."""

    def __init__(self, model, folder):
        self.path = Path(folder) / "model.pickle"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(pickle.dumps(model))

    def __reduce__(self):
        return _arrived, (str(self.path), self.path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _arrived(path, written):
    return pickle.loads(Path(path).read_bytes())


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
        raise ValueError("this method gives more than results of single clips: call it without by_clip") from error
    found = found.drop_vars(added)
    if isinstance(found, xr.Dataset):
        return found.assign({name: found[name].transpose(*values.dims) for name, values in parts[0].items()})
    return found.transpose(*parts[0].dims)


def content(value):
    """What is hashed of an option: functions by their code, clips by their sound, results by their values."""
    if isinstance(value, pd.DataFrame) and {"path", "audio"} & set(value):
        return value.drop(columns=["path", "audio"], errors="ignore"), [_sound(source) for source in sources(value)]
    if isinstance(value, xr.DataArray):
        value = value.to_dataset(name="value")
    if isinstance(value, xr.Dataset):
        parts = {name: [*x.dims, _values(x.values)] for name, x in value.variables.items()}
        return parts, {name: str(x) for name, x in value.attrs.items()}
    if isinstance(value, partial):
        return [content(value.func), [*map(content, value.args)], {k: content(x) for k, x in value.keywords.items()}]
    if isinstance(value, FunctionType) and not value.__module__.startswith(f"{__package__}."):  # those are in CODE
        code, known = _plain(value.__code__), (value.__globals__, value.__name__, value.__defaults__, value.__closure__)
        return cloudpickle.dumps(FunctionType(code, *known)), _file(value)
    return cloudpickle.dumps(value) if callable(value) else value


def _values(x):
    """Hash of an array, alike before and after it was saved: words may be objects, and memory be laid out otherwise."""
    return joblib.hash(x.tolist() if x.dtype.kind in "OU" else np.ascontiguousarray(x))


def _plain(code):
    """Code without the place where it stands, which differs from one start of a notebook to the next."""
    inside = tuple(_plain(x) if isinstance(x, CodeType) else x for x in code.co_consts)
    return code.replace(co_filename="", co_firstlineno=0, co_consts=inside)


def _sound(source):
    """Hash of a file, None where there is none, or of sound in memory."""
    if isinstance(source, Waveform):
        return joblib.hash([source.samples, source.sample_rate])
    if isinstance(source, Encoded):
        return joblib.hash(source.content)
    path = source
    return joblib.hash(Path(path).read_bytes()) if Path(path).is_file() else None


def state(model):
    """All that decides what a model answers."""
    networks = [x for x in (model.network, model.head) if x is not None]
    weights = [{name: x.cpu().numpy() for name, x in network.state_dict().items()} for network in networks]
    settings = [model.labels, model.preprocessor, model.trained is None, str(model.device.type)]
    if not model.family.resumable:
        settings += [content(x) for x in (model.family.preprocess, model.family.read, model.family.layout)]
    heads = (
        [] if model.head is None else [(_file(type(m)), cloudpickle.dumps(_public(m))) for m in model.head.modules()]
    )
    versions = torch.__version__, metadata.version("transformers")
    config = getattr(model.network, "config", None)
    return (
        weights,
        config if config is None else config.to_json_string(),
        list(map(repr, networks)),
        settings,
        heads,
        versions,
    )


def _public(module):
    """What a module holds besides weights, and the code of its class where that stands in no file."""
    known = {name: x for name, x in vars(module).items() if not name.startswith("_")}
    forward = type(module).forward
    return known, None if _file(type(module)) else cloudpickle.dumps(_plain(forward.__code__))


def _file(thing):
    """Hash of the file in which a function or class stands, None where it is none, as in a notebook."""
    try:
        return _sound(inspect.getsourcefile(thing) or "")
    except TypeError:
        return None


def _code(folder):
    """Hash of the modules in a folder."""
    return joblib.hash([(path.name, path.read_bytes()) for path in sorted(Path(folder).glob("*.py"))])


CODE = _code(Path(__file__).parents[1])  # as imported: what is edited later does not run in this process
