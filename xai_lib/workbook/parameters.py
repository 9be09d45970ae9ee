"""Parameters of every notebook: names, defaults, allowed values."""

import hashlib
import json
import os
import re
import time
from pathlib import Path

DEFAULTS = {
    "corpus": "sample",
    "root": None,
    "files": None,
    "model": "pocket",
    "emotion": "angry",
    "layer": None,
    "neuron": None,
    "k": 20,
    "max_clips": 64,
    "batch": 16,
    "device": "auto",
    "seed": 0,
    "profile": "quick",
}
_INTEGERS = {"layer": 0, "neuron": 0, "k": 1, "max_clips": 1, "batch": 1, "seed": 0}  # with their minimum
_OPTIONAL = {"root", "files", "layer", "neuron", "max_clips"}


def check(given: dict) -> dict:
    """Return the complete, typed parameters of a run, from those set by a notebook, papermill or the environment.

    `given` may have any of the names in `DEFAULTS`, and its values may be text ("50", "none"). Raises ValueError, with
    what is allowed, for an unknown name or a value of the wrong type.
    """
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)}: the parameters are {', '.join(DEFAULTS)}")
    values = {**DEFAULTS, **given}
    for name, value in values.items():
        value = value.strip() if isinstance(value, str) else value
        if value is None or isinstance(value, str) and value.lower() in {"none", "", "null"}:
            if name not in _OPTIONAL:
                raise ValueError(f"{name} must have a value (the default is {DEFAULTS[name]!r})")
            value = None
        elif name in _INTEGERS:
            value = _integer(name, value)
        elif name == "files" and not isinstance(value, (str, os.PathLike)):
            value = [str(item) for item in value]
        elif not isinstance(value, (str, os.PathLike)):
            raise ValueError(f"{name} must be text, not {value!r}")
        else:
            value = str(value)
        values[name] = value
    if values["profile"] not in {"quick", "full"}:
        raise ValueError(f'profile must be "quick" or "full", not {values["profile"]!r}')
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", values["device"]):
        raise ValueError(f'device must be "auto", "cpu", "cuda", "cuda:1" or "mps", not {values["device"]!r}')
    return values


def _integer(name: str, value: object) -> int:
    """Return `value` as an integer; raise ValueError if it is none, or below the parameter's minimum."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = None
    if (
        number is None
        or number < _INTEGERS[name]
        or isinstance(value, bool)
        or isinstance(value, float)
        and value != number
    ):
        raise ValueError(f"{name} must be a whole number from {_INTEGERS[name]} up, not {value!r}")
    return number


def folder_name(values: dict) -> str:
    """Return <time>-<corpus>-<model>-<hash of all parameters>."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:6]
    names = [re.sub(r"[^\w.-]+", "_", Path(values[name]).stem or values[name])[:32] for name in ("corpus", "model")]
    return "-".join([time.strftime("%Y%m%dT%H%M%S"), *names, digest])
