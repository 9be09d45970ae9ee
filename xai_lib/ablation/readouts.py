"""Readouts: what is measured of an edited forward pass, in the prediction and in every layer downstream of the edit.

The prediction and the change of later layers are always measured. `Proxies`, `Decoders` and `SpeakerSimilarity` are
further readouts, which `sweep` takes as a list.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr

from ..models.sites import Site
from ..probing import acoustic_decoders, activation_proxies, speaker_space

FRAME_CHANGE_THRESHOLD = 0.1  # least relative change with which a frame counts as changed

# {site: function from rows [row, frame, neuron] to values [row, column]}
Functions = dict[Site, Callable[[torch.Tensor], torch.Tensor]]


class Readout(Protocol):
    """Something that is read at every layer, of the clean clip and of each edited copy."""

    name: str
    dim: str | None  # further dim of what is read; None where it is one number
    fitted: xr.Dataset | None  # what was fitted on training clips, whose speakers `sweep` compares with the clips'

    @property
    def names(self) -> list[str]:
        """Return the names along `dim`, one for each column that is read."""

    def check(self) -> None:
        """Raise ValueError where what was fitted is of another kind."""

    def functions(self, model, waveform: np.ndarray) -> Functions:
        """Return what reads a clip at each site; the clean clip is the first row that it gets."""

    def variables(self, edited: xr.DataArray, clean: xr.DataArray) -> dict[str, xr.DataArray]:
        """Return the variables of the result, by name: those of the edits, and with the prefix `clean_` of the clip."""


class Proxies:
    """Read acoustic proxies of activations: RMS, zero-crossing rate and spectral centroid.

    They are hardly sensitive where blocks end in a layer norm. `fitted` is as returned by `activation_proxies.fit` on
    training clips. Gives ``proxy_value``, ``proxy_change``, relative, and ``proxy_sd``, the change in standard
    deviations between training clips, [..., readout_layer, proxy].
    """

    name = "proxies"
    dim = "proxy"

    def __init__(self, fitted: xr.Dataset) -> None:
        self.fitted = fitted

    @property
    def names(self) -> list[str]:
        """Return the names of the proxies."""
        return self.fitted["proxy"].values.tolist()

    def check(self) -> None:
        """Raise ValueError where `fitted` was not returned by `activation_proxies.fit`."""
        _require_variable(self.fitted, "component", "activation_proxies.fit")

    def functions(self, model, waveform: np.ndarray) -> Functions:
        """Return what reads the proxies of rows at each site."""
        return activation_proxies.readout_functions(model, self.fitted)

    def variables(self, edited: xr.DataArray, clean: xr.DataArray) -> dict[str, xr.DataArray]:
        """Return the proxies and their changes."""
        change = edited - clean
        sd = xr.DataArray(self.fitted["sd"].values, dims=("readout_layer", "proxy"))
        size = np.abs(clean)
        return {
            "proxy_value": edited,
            "proxy_change": change / size.where(size > 0),
            "proxy_sd": change / sd.where(sd > 0),
            "clean_proxy_value": clean,
        }


class Decoders:
    """Read acoustic features that linear decoders find in the layers, such as F0 and level.

    `fitted` is as returned by `acoustic_decoders.fit` on training clips. Gives ``decoded`` and ``decoded_change``
    [..., readout_layer, feature], in the feature's unit (coordinate ``unit``).
    """

    name = "decoders"
    dim = "feature"

    def __init__(self, fitted: xr.Dataset) -> None:
        self.fitted = fitted

    @property
    def names(self) -> list[str]:
        """Return the names of the features."""
        return self.fitted["feature"].values.tolist()

    def check(self) -> None:
        """Raise ValueError where `fitted` was not returned by `acoustic_decoders.fit`."""
        _require_variable(self.fitted, "weight", "acoustic_decoders.fit")

    def functions(self, model, waveform: np.ndarray) -> Functions:
        """Return what decodes the features of rows at each site."""
        return acoustic_decoders.readout_functions(model, self.fitted, waveform)

    def variables(self, edited: xr.DataArray, clean: xr.DataArray) -> dict[str, xr.DataArray]:
        """Return the decoded features and their changes."""
        return {"decoded": edited, "decoded_change": edited - clean, "clean_decoded": clean}

    def direct_effects(self, functions: Functions, clean: dict[Site, torch.Tensor]) -> DirectEffects:
        """Return a recorder of what edits change directly, for `functions` of a clip and its `clean` states."""
        return DirectEffects(acoustic_decoders.direct_effect(functions, clean), clean)


class SpeakerSimilarity:
    """Read how like the clean clip's voice an edited one is: ``similarity``, a cosine [..., readout_layer].

    `fitted` is as returned by `speaker_space.fit` on training clips, or by `speaker_space.xvector`, a function, which
    reads the last layer only.
    """

    name = "speaker similarity"
    dim = None

    def __init__(self, fitted: xr.Dataset | Callable) -> None:
        self.space = fitted
        self.fitted = None if callable(fitted) else fitted

    @property
    def names(self) -> list[str]:
        """Return the name of the only column."""
        return ["similarity"]

    def check(self) -> None:
        """Raise ValueError where the space was not returned by `speaker_space.fit` or `xvector`."""
        if not callable(self.space):
            _require_variable(self.space, "projection", "speaker_space.fit")

    def functions(self, model, waveform: np.ndarray) -> Functions:
        """Return what compares rows with the clean one at each site; NaN where the space is not read."""
        positions = speaker_space.readout_functions(model, self.space, waveform)
        functions: Functions = dict.fromkeys(model.sites(), _not_read)
        for site, read_position in positions.items():
            functions[site] = speaker_space.similarity(read_position)
        return functions

    def variables(self, edited: xr.DataArray, clean: xr.DataArray) -> dict[str, xr.DataArray]:
        """Return the similarity."""
        return {"similarity": edited}


class RelativeChange:
    """Read how far the layers move: ``relative_change``, ‖h′ − h‖ / ‖h‖, and ``frames_changed``.

    The latter is the share of frames in which the former exceeds 10 %. `clean` holds the clean clip's states by site.
    """

    name = "relative change"
    dim = "measure"
    names = ["relative_change", "frames_changed"]
    fitted = None

    def check(self) -> None:
        """Accept: nothing was fitted."""

    def functions(self, model, clean: dict[Site, torch.Tensor]) -> Functions:
        """Return what compares rows with the clean states at each site."""
        return {site: partial(self._read, clean, site) for site in model.sites()}

    @staticmethod
    def _read(clean, site, hidden):
        change = (hidden - clean[site]).norm(dim=-1)
        size = clean[site].norm(dim=-1)
        relative_change = change.norm(dim=-1) / size.norm(dim=-1)
        frames_changed = (change > FRAME_CHANGE_THRESHOLD * size).float().mean(dim=-1)
        return torch.stack([relative_change, frames_changed], dim=-1)

    def variables(self, edited: xr.DataArray, clean: xr.DataArray) -> dict[str, xr.DataArray]:
        """Return the two measures as variables of their own."""
        return {name: edited.sel(measure=name, drop=True) for name in self.names}


class DirectEffects:
    """Recorder of what each edit changes in the residual stream itself, as decoders read it at every later layer.

    The stream passes through the layers, so that its change after the edited layer is in all later ones too: what the
    decoders make of that change alone is the direct effect.
    """

    def __init__(self, read: Callable, clean: dict[Site, torch.Tensor]) -> None:
        self._read = read
        self._clean = clean
        self._values: dict[int, torch.Tensor] = {}

    def recording(self, number: int, plan: dict, layer: int) -> dict:
        """Return the plan {Site: edit}, number `number`, with an edit after `layer` that also records its effect."""
        site = Site(layer)
        return plan | {site: partial(self._edit_and_record, number, site, plan.get(site))}

    def _edit_and_record(self, number, site, edit, hidden):
        edited = hidden if edit is None else edit(hidden)
        self._values[number] = self._read(edited - self._clean[site])
        return edited

    def values(self) -> torch.Tensor:
        """Return the direct effects of all plans, in their order: [edit, readout_layer, feature]."""
        return torch.stack([self._values[number] for number in sorted(self._values)])


def joint_functions(sites, functions_of_readouts: dict[str, Functions], clean: dict[Site, torch.Tensor]) -> Functions:
    """Return functions that read all readouts at once, for `execution.cascade_read`: rows to [row, all columns].

    The clean clip is the first row that they get at each site; it is kept in `clean`.
    """

    def read(site, hidden):
        clean.setdefault(site, hidden[:1])
        return torch.cat([functions[site](hidden) for functions in functions_of_readouts.values()], dim=-1)

    return {site: partial(read, site) for site in sites}


def prediction(logits: xr.DataArray, clean: xr.DataArray, true_labels: np.ndarray) -> dict[str, xr.DataArray]:
    """Compute what edits change in the prediction.

    Parameters
    ----------
    logits, clean : DataArray
        Of the edits [clip, ..., label], NaN of those that were not run, and of the clean clip [clip, label].
    true_labels : array [clip]
        Index of each clip's true label; −1 where the model does not know it.

    Returns
    -------
    dict
        ``logits``, ``probability``, ``log_odds`` (their change, nats), ``kl``, divergence of the edited from the clean
        probabilities (nats), ``changed``, whether the label changes, ``correct``, whether it is the true one; and
        ``clean_logits``, ``clean_probability``, ``clean_correct``.
    """
    log_p, clean_log_p = _log_softmax(logits), _log_softmax(clean)
    p, clean_p = np.exp(log_p), np.exp(clean_log_p)
    was_run = np.isfinite(logits).all("label")
    best, clean_best = logits.fillna(-np.inf).argmax("label"), clean.argmax("label")
    truth = xr.DataArray(true_labels, dims="clip")
    return {
        "logits": logits,
        "probability": p,
        "log_odds": _log_odds(log_p) - _log_odds(clean_log_p),
        "kl": (clean_p * (clean_log_p - log_p)).sum("label", skipna=False),
        "changed": (best != clean_best).where(was_run),
        "correct": (best == truth).where(was_run & (truth >= 0)),
        "clean_logits": clean,
        "clean_probability": clean_p,
        "clean_correct": (clean_best == truth).where(truth >= 0),
    }


def mask_unreached(values: xr.DataArray, selection, *, at_edit: bool) -> xr.DataArray:
    """Set values [..., readout_layer] to NaN at layers that the edit cannot affect, or where it cannot be read.

    With `at_edit`, values are kept from the first edited layer on, else above the last one: of an edit of
    `hidden_state` what is read at the edited layer is the edit itself.
    """
    layer_groups = selection.layer_groups
    if at_edit:
        lowest = [min(layers) for layers in layer_groups.values()]
    else:
        lowest = [max(layers) + (selection.part == "hidden_state") for layers in layer_groups.values()]
    first_readable = xr.DataArray(lowest, {selection.dim: list(layer_groups)}, selection.dim)
    readout_layer = xr.DataArray(np.arange(values.sizes["readout_layer"]), dims="readout_layer")
    return values.where(readout_layer >= first_readable)


def _log_softmax(logits):
    """Return log probabilities [..., label]; NaN where logits are."""
    with np.errstate(invalid="ignore"):
        total = xr.apply_ufunc(np.logaddexp.reduce, logits, input_core_dims=[["label"]], kwargs={"axis": -1})
    return logits - total


def _log_odds(log_p):
    """Return log odds from log probabilities; infinite at a probability of 1."""
    with np.errstate(divide="ignore"):
        return log_p - np.log1p(-np.minimum(np.exp(log_p), 1))


def _not_read(hidden) -> torch.Tensor:
    """Return NaN for each row."""
    return hidden.new_full((len(hidden), 1), torch.nan)


def _require_variable(fitted: Any, name: str, function: str) -> None:
    """Raise ValueError where `fitted` is not the Dataset that a function returns."""
    if fitted is None:
        raise ValueError(f"a readout needs the Dataset returned by {function}(model, clips)")
    speaker_space.require_dataset(fitted, function)
    if name not in fitted:
        raise ValueError(f"expected the Dataset returned by {function}(model, clips); this one has no {name!r}")
