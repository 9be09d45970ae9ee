"""Every public function that takes a model and clips says so where it gets the name of a model instead."""

from __future__ import annotations

import inspect
from importlib import import_module

import pandas as pd
import pytest

from xai_lib import ablation, hooks, models, pruning

MODULES = (
    "ablation",
    "activations",
    "activations.classifier_heads",
    "activations.exemplars",
    "attribution",
    "dissection",
    "faithfulness.deletion_test",
    "probing.acoustic_decoders",
    "probing.activation_proxies",
    "probing.linear_probes",
    "probing.speaker_space",
    "probing.time_courses",
    "pruning",
)
# Inside the library they get a model that was checked; `ablation.sweep` has a message of its own.
EXCEPT = {"forwards", "hidden_states", "sweep", "usable"}


def methods() -> list:
    """Return the public functions of MODULES whose first two parameters are a model and clips."""
    functions = {}
    for module in MODULES:
        package = import_module(f"xai_lib.{module}")
        for name, function in vars(package).items():
            if not inspect.isfunction(function) or name.startswith("_") or name in EXCEPT:
                continue
            if list(inspect.signature(function).parameters)[:2] == ["model", "clips"]:
                functions[f"{function.__module__}.{name}"] = function
    return list(functions.values())


@pytest.mark.parametrize("method", methods(), ids=lambda method: f"{method.__module__}.{method.__name__}")
def test_require_model_is_called_by_every_method(method):
    """A method that gets the name of a model, or clips in its place, says which call opens a model."""
    clips = pd.DataFrame({"path": ["a.wav"], "label": ["sad"]})
    required = [
        name
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.default is parameter.empty and name not in ("model", "clips")
    ]
    options = dict.fromkeys(required)
    with pytest.raises(ValueError, match=r"not its name 'pocket': pass models\.load\('pocket'\)"):
        method(model="pocket", clips=clips, **options)
    with pytest.raises(ValueError, match="not a DataFrame: pass what models.load returns"):
        method(model=clips, clips="pocket", **options)


@pytest.mark.parametrize(
    "call",
    [
        lambda: hooks.capture("pocket", [1]).__enter__(),
        lambda: hooks.edit("pocket", {}).__enter__(),
        lambda: pruning.prune("pocket", {}).__enter__(),
        lambda: pruning.save("pocket", {}, "folder"),
        lambda: pruning.fingerprint("pocket"),
        lambda: pruning.output_norm("pocket", None),
        lambda: ablation.groups("pocket"),
    ],
)
def test_require_model_is_called_without_clips(call):
    """Functions of a model alone say which call opens it, too."""
    with pytest.raises(ValueError, match=r"pass models\.load\('pocket'\)"):
        call()


def test_require_model_accepts_models(shared):
    """An opened model is accepted."""
    models.require_model(shared())
