"""Long runs that can be stopped and resumed: the results of each clip are cached in a folder."""

import inspect
import json
import pickle
import warnings
from dataclasses import fields, is_dataclass
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
    """Compute `method(model, clips, **options)` clip by clip, and take from `folder` what another run has computed.

    Clips run in parallel where joblib is configured so, by `with joblib.parallel_config(n_jobs=4)` or, on a cluster
    that shares the folder, `backend="dask"`: in processes, since threads would share the hooks. Parallel runs pay off
    where a clip takes longer than the start of a process, some ten seconds.

    A cached result is valid for the same clip (its sound, index and metadata), method, options (all but `batch`;
    functions by their code), weights, labels and settings of the model, kind of device, and code of xai_lib, torch and
    transformers. Files that a method reads beside the clip are not tracked. The cached files are pickles: open only
    folders of your own.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    method : function
        Returns a Dataset or DataArray of single clips, in which nothing is summed over clips, such as
        `attribution.gradient_shap`.
    folder : str or Path
        Created where it does not exist; delete it to start afresh.

    Returns
    -------
    Dataset or DataArray
        As returned by `method`.

    Raises
    ------
    ValueError
        As raised by `method`; also where `method` sums over clips, and inside of `hooks.edit`, which the cache does not
        record.

    References
    ----------
    joblib.Memory, which writes each result to a temporary file and then moves it into place, so that a run may be
    killed at any time.
    """
    clips = as_clips(clips, sample_rate)
    model.require_unedited()
    memory = joblib.Memory(f"{folder}/{__version__}-{joblib.hash([CODE, model_state(model)])}", verbose=0)
    cached_method = memory.cache(_compute, ignore=["method", "model", "clip", "options"])
    request = [
        hashable_content(method),
        {name: hashable_content(option) for name, option in options.items() if name != "batch"},
    ]
    rows = [clips.iloc[[position]] for position in range(len(clips))]
    keys = [[request, hashable_content(row)] for row in rows]
    missing = [
        i for i, row in enumerate(rows) if not cached_method.check_call_in_cache(keys[i], method, model, row, options)
    ]
    parallel = joblib.Parallel(return_as="generator", prefer="processes")
    sent_model = model if parallel.n_jobs == 1 else _SentModel(model, memory.location)
    calls = (joblib.delayed(_attempt)(cached_method, keys[i], method, sent_model, rows[i], options) for i in missing)
    failed = [error for error in tqdm(parallel(calls), total=len(missing), unit="clip", leave=False, delay=2) if error]
    skipped = {index: reason for error in failed for index, reason in error.skipped.items()}
    parts = [
        cached_method(key, method, model, row, options) for key, row in zip(keys, rows) if row.index[0] not in skipped
    ]
    if not len(clips):
        raise ValueError("there are no clips: the selection is empty")
    if not parts:
        raise NoClips(skipped)
    if skipped:
        message = f"{len(skipped)} of {len(clips)} clips were skipped, e.g. {next(iter(skipped.values()))}"
        warnings.warn(message, stacklevel=2)
    result = _concatenate(parts)
    return result.assign_attrs(skipped=json.dumps({str(index): reason for index, reason in skipped.items()}))


def _attempt(compute, *arguments):
    """Store the result of `compute`; return the error where the clip cannot be used."""
    try:
        compute(*arguments)
    except NoClips as error:
        return error


def _compute(key, method, model, clip, options):
    """Compute the result that is cached under `key`."""
    return method(model, clip, **options)


class _SentModel:
    """A model on its way to other processes: written once, and read once by each."""

    def __init__(self, model, folder):
        self.path = Path(folder) / "model.pickle"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(pickle.dumps(model))

    def __reduce__(self):
        return _load_sent, (str(self.path), self.path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load_sent(path, written):
    """Return the model in a file, which is read once as long as the time `written` is the same."""
    return pickle.loads(Path(path).read_bytes())


def _concatenate(parts):
    """Concatenate results of single clips, with NaN beyond the frames of each."""
    added = {dim for dim in parts[0].dims if dim not in parts[0].coords}
    parts = [part.assign_coords({dim: np.arange(part.sizes[dim]) for dim in added}) for part in parts]
    concat_options = {"coords": "minimal", "compat": "no_conflicts", "join": "outer", "combine_attrs": "override"}
    if isinstance(parts[0], xr.Dataset):
        concat_options["data_vars"] = "minimal"
    try:
        result = xr.concat(parts, "clip", **concat_options)
    except xr.MergeError as error:
        raise ValueError("the method returns more than results of single clips: call it without by_clip") from error
    result = result.drop_vars(added)
    if isinstance(result, xr.Dataset):
        return result.assign({name: result[name].transpose(*values.dims) for name, values in parts[0].items()})
    return result.transpose(*parts[0].dims)


def hashable_content(value):
    """Return what is hashed of an option: functions by their code, clips by their sound, results by their values.

    The same holds of what is in a list, or in an object of the library, such as an `ablation.Edit`.
    """
    if isinstance(value, pd.DataFrame) and {"path", "audio"} & set(value):
        return value.drop(columns=["path", "audio"], errors="ignore"), [_digest(source) for source in sources(value)]
    if isinstance(value, xr.DataArray):
        value = value.to_dataset(name="value")
    if isinstance(value, xr.Dataset):
        parts = {name: [*variable.dims, _hash_array(variable.values)] for name, variable in value.variables.items()}
        return parts, {name: str(attribute) for name, attribute in value.attrs.items()}
    if isinstance(value, partial):
        return [
            hashable_content(value.func),
            [*map(hashable_content, value.args)],
            {name: hashable_content(option) for name, option in value.keywords.items()},
        ]
    # functions of the library are in CODE
    if isinstance(value, FunctionType) and not value.__module__.startswith("xai_lib."):
        code, context = (
            _without_location(value.__code__),
            (value.__globals__, value.__name__, value.__defaults__, value.__closure__),
        )
        return cloudpickle.dumps(FunctionType(code, *context)), _source_hash(value)
    if callable(value):
        return cloudpickle.dumps(value)
    if isinstance(value, (list, tuple)):
        return [hashable_content(item) for item in value]
    if type(value).__module__.startswith("xai_lib."):
        # of a dataclass its fields, and not what it has cached of them
        names = [field.name for field in fields(value)] if is_dataclass(value) else list(vars(value))
        return type(value).__qualname__, {name: hashable_content(getattr(value, name)) for name in names}
    return value


def _hash_array(array):
    """Hash an array, alike before and after it was saved: texts may be objects, and the memory layout may differ."""
    return joblib.hash(array.tolist() if array.dtype.kind in "OU" else np.ascontiguousarray(array))


def _without_location(code):
    """Return code without its file and line, which differ from one start of a notebook to the next."""
    constants = tuple(
        _without_location(constant) if isinstance(constant, CodeType) else constant for constant in code.co_consts
    )
    return code.replace(co_filename="", co_firstlineno=0, co_consts=constants)


def _digest(source):
    """Hash a file, or sound in memory; None where there is no such file."""
    if isinstance(source, Waveform):
        return joblib.hash([source.samples, source.sample_rate])
    if isinstance(source, Encoded):
        return joblib.hash(source.content)
    path = source
    return joblib.hash(Path(path).read_bytes()) if Path(path).is_file() else None


def model_state(model):
    """Collect all that determines the output of a model."""
    networks = [network for network in (model.network, model.head) if network is not None]
    weights = [{name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()} for network in networks]
    settings = [model.labels, model.preprocessor, model.trained is None, str(model.device.type)]
    if not model.architecture.resumable:
        settings += [
            hashable_content(function)
            for function in (model.architecture.preprocess, model.architecture.read, model.architecture.layout)
        ]
    heads = (
        []
        if model.head is None
        else [(_source_hash(type(module)), cloudpickle.dumps(_public_state(module))) for module in model.head.modules()]
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


def _public_state(module):
    """Return what a module holds besides weights, and the code of its class where that is defined in no file."""
    attributes = {name: attribute for name, attribute in vars(module).items() if not name.startswith("_")}
    forward = type(module).forward
    return attributes, None if _source_hash(type(module)) else cloudpickle.dumps(_without_location(forward.__code__))


def _source_hash(definition):
    """Hash the file in which a function or class is defined; None where there is none, as in a notebook."""
    try:
        return _digest(inspect.getsourcefile(definition) or "")
    except TypeError:
        return None


def _code(folder):
    """Hash the modules in a folder and below."""
    files = sorted(Path(folder).rglob("*.py"))
    return joblib.hash([(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files])


CODE = _code(Path(__file__).parents[1])  # as imported: code that is edited later does not run in this process
