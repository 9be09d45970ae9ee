"""Parameters of every notebook: names, defaults, allowed values."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
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


def check(raw_values: Mapping[str, object]) -> dict:
    """Return the complete, typed parameters of a run, from those set by a notebook, papermill or the environment.

    `raw_values` may have any of the names in `DEFAULTS`, and its values may be text ("50", "none"). Raises ValueError,
    with what is allowed, for an unknown name or a value of the wrong type.
    """
    unknown = sorted(set(raw_values) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)}: the parameters are {', '.join(DEFAULTS)}")
    values = {name: _typed(name, value) for name, value in {**DEFAULTS, **raw_values}.items()}
    if values["profile"] not in {"quick", "full"}:
        raise ValueError(f'profile must be "quick" or "full", not {values["profile"]!r}')
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", values["device"]):
        raise ValueError(f'device must be "auto", "cpu", "cuda", "cuda:1" or "mps", not {values["device"]!r}')
    return values


def _typed(name: str, value: object) -> str | int | list[str] | None:
    """Return the value of a parameter with its type; raise ValueError if it has none of the types allowed."""
    if isinstance(value, str):
        value = value.strip()
    if value is None or (isinstance(value, str) and value.lower() in {"none", "", "null"}):
        if name not in _OPTIONAL:
            raise ValueError(f"{name} must have a value (the default is {DEFAULTS[name]!r})")
        return None
    if name in _INTEGERS:
        return _integer(name, value)
    if isinstance(value, (str, os.PathLike)):
        return str(value)
    if name == "files":
        return [str(item) for item in value]
    raise ValueError(f"{name} must be text, not {value!r}")


def _integer(name: str, value: object) -> int:
    """Return `value` as an integer; raise ValueError if it is none, or below the parameter's minimum."""
    message = f"{name} must be a whole number from {_INTEGERS[name]} up, not {value!r}"
    if isinstance(value, bool):
        raise ValueError(message)
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(message) from None
    is_fraction = isinstance(value, float) and value != number
    if is_fraction or number < _INTEGERS[name]:
        raise ValueError(message)
    return number


def folder_name(values: dict) -> str:
    """Return <time>-<corpus>-<model>-<hash of all parameters>."""
    text = json.dumps(values, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    corpus = _safe_name(values["corpus"])
    model = _safe_name(values["model"])
    return f"{time.strftime('%Y%m%dT%H%M%S')}-{corpus}-{model}-{digest}"


def _safe_name(name: str) -> str:
    """Return the last part of a name or path, without its suffix, in at most 32 characters that file names may have."""
    return re.sub(r"[^\w.-]+", "_", Path(name).stem or name)[:32]
