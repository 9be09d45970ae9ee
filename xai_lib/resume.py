"""Long runs that can be stopped and go on: what was computed of each clip is kept in a folder."""

from pathlib import Path

import joblib

from . import __version__


def _code(folder):
    """Hash of the modules in a folder."""
    return joblib.hash([(path.name, path.read_bytes()) for path in sorted(Path(folder).glob("*.py"))])


CODE = _code(Path(__file__).parent)  # as imported: what is edited later does not run in this process


def kept(function, model, folder, *, ignore=("model", "batch")):
    """`function`, whose results are kept in `folder`, so that the same call of another run finds them.

    The same call: equal arguments (arrays by content), weights, labels and settings of the model, version
    and modules of xai_lib, and source of `function`, which must stand at the top of a module. None of `ignore` counts, and None as a folder keeps nothing.
    The files are pickles: open folders of your own only.

    References
    ----------
    joblib.Memory, which writes each result beside its place and moves it there, so that a run may be killed any time.
    """
    if folder is None:
        return function
    networks = [x for x in (model.network, model.head) if x is not None]
    state = [{name: x.cpu().numpy() for name, x in network.state_dict().items()} for network in networks]
    settings = model.network.config.to_json_string(), list(map(repr, networks)), model.labels, model.normalise
    memory = joblib.Memory(f"{folder}/{__version__}-{joblib.hash([CODE, state, settings])}", verbose=0)
    return memory.cache(function, ignore=list(ignore))
