"""Checks of the arguments that `sweep` and `inversion.upstream` share, before anything is computed."""

from __future__ import annotations

import warnings

from .. import results
from ..corpora import identity
from ..models import require_model
from .conditions import Edit
from .controls import RandomControls
from .selection import Selection


def require_types(model, clips, selection, controls, edit, readouts=()) -> None:
    """Raise ValueError, which says what makes the right one, for an argument of the wrong type."""
    if hasattr(clips, "architecture"):
        raise ValueError("clips is a model: the model is the first argument, and clips the second")
    require_model(model)
    if not isinstance(selection, Selection):
        raise ValueError(
            "selection must be a Selection: ablation.select(scores, k=20) of scores, or "
            f"ablation.Selection({{layer: neurons}}); not a {type(selection).__name__}"
        )
    if controls is not None and not isinstance(controls, RandomControls):
        raise ValueError(
            "controls must be ablation.RandomControls(activation_stats, n=40), or None for no controls; not a "
            f"{type(controls).__name__}"
        )
    if not isinstance(edit, Edit):
        raise ValueError(f"edit must be an Edit, such as ablation.Edit('flip'), not a {type(edit).__name__}")
    if not isinstance(readouts, (list, tuple)):
        raise ValueError("readouts must be a list, such as [ablation.Proxies(fitted)]")
    for readout in readouts:
        if not hasattr(readout, "functions") or not hasattr(readout, "variables"):
            raise ValueError(
                "readouts must hold readouts, such as ablation.Proxies(fitted) or ablation.Decoders(fitted), not a "
                f"{type(readout).__name__}"
            )


def warn_on_speaker_leakage(clips, selection, controls, edit, readouts=()) -> None:
    """Warn if clips are of speakers on whom neurons were selected, or something was fitted, as far as that is known."""
    fitted = [edit.activation_stats, *(readout.fitted for readout in readouts)]
    if controls is not None:
        fitted += [controls.activation_stats, controls.target_blind_stats]
    train_speakers = set(selection.speakers)
    for data in fitted:
        if data is not None:
            train_speakers |= results.recorded_speakers(data)

    shared_speakers = identity.shared_speakers(clips, train_speakers)
    if shared_speakers:
        reason = "effects are evaluated on speakers used to select neurons or to fit decoders or a speaker space"
        warnings.warn(
            f"speaker leakage: {reason} ({', '.join(shared_speakers)}); evaluate on other speakers", stacklevel=3
        )
