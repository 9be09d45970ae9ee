"""Layer-by-layer ablation: negate or zero selected neurons and measure the effect on later layers and the prediction.

The edit propagates through the rest of the network, and everything is read where it can change. Controls are
random neurons of about the same size, and target-blind selections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from .. import execution, hooks, results, targets
from ..activations import donors
from ..corpora import as_clips
from . import arguments
from .conditions import ConditionGrid, Edit
from .controls import SELECTED, NeuronSet, RandomControls
from .readouts import Decoders, Readout, RelativeChange, joint_functions, mask_unreached, prediction
from .selection import Selection


def sweep(
    model,
    clips,
    selection: Selection,
    *,
    controls: RandomControls | None,
    edit: Edit = Edit(),
    readouts: Sequence[Readout] = (),
    target="predicted",
    seed: int = 0,
    batch: int | None = None,
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Edit selected neurons, one layer at a time, and controls in their place, and measure downstream effects.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`. Of other speakers than those on whom neurons were selected and readouts fitted; else a
        warning.
    selection : Selection
        Of scores, `ablation.select(scores, k=20)`; or by hand, `ablation.Selection({layer: neurons})`. With
        `selection.together(groups)` the layers of a group are edited together, and the dim is `group`.
    controls : RandomControls or None
        Random neurons of like size, directions, and target-blind selections; None leaves the effects without anything
        to compare them with.
    edit : Edit
        Modes, frames, and what they need. Default: a sign flip in all frames.
    readouts : sequence
        What is measured besides the prediction and the change of later layers: `Proxies`, `Decoders`,
        `SpeakerSimilarity`.
    target : str, int or pair
        A class, a contrast of two, or "predicted".
    batch : int, optional
        Edited copies that share a forward (`execution.cascade_read`, equal to one hooked forward per edit).

    Returns
    -------
    Dataset
        [clip, layer, mode, neuron_set, ...], where `neuron_set` is "selected", "random 1", "random 2", …,
        "direction 1", …, "most active" and "writes most", and the coordinate ``kind`` [neuron_set] one of "selected",
        "random", "direction" and "target-blind":

        ``target_change``, change of the target's log-odds, edited minus clean (nats); ``log_odds`` [..., label], the
        same of every class; ``logits``, ``probability`` [..., label]; ``kl``, divergence of the edited from the clean
        probabilities (nats); ``changed``, whether the predicted label changes; ``correct``, whether the prediction is
        the clip's true label (NaN where the model does not know it).

        At later layers, [..., readout_layer]: ``relative_change``, ‖h′ − h‖ / ‖h‖, and at the edited layer too if
        `hidden_state` is edited, where it is the size of the edit; ``frames_changed``, the share of frames in which it
        exceeds 10 %; and the variables of `readouts`. With `Decoders`, where the residual stream passes through the
        layers, also the parts of ``decoded_change``: ``direct_effect``, decoded from the stream's change after the
        edited layer, the last of a group (there it includes what attention and feed-forward up to it made of the edits
        before them), and ``indirect_effect``, the rest, through the layers above. NaN below the edit, and, except for
        the first two, at the edited block.

        All are NaN where no condition was run (controls, in modes that `RandomControls.modes` leaves out).

        The clip's true label is in the coordinate ``emotion``. Of the clean clip: ``clean_logits``,
        ``clean_probability``, ``clean_correct``, ``clean_proxy_value``, ``clean_decoded``; of donors: ``donor_logits``
        and the coordinate ``donor_label``. Of the neuron sets: ``is_selected`` [layer, neuron], which neurons were
        selected (of groups [group, edited_layer, neuron]); and, with controls that have activation statistics, ``rms``
        [layer, neuron_set], root mean square activations, to check the matching; ``n_random_sets`` [layer], how many
        different random sets exist, and ``random_overlap``, the share of neurons that two of those drawn have in
        common.

    Raises
    ------
    UntrainedHead, ValueError
        A random head; unknown layers, neurons, modes, frames or target; activation statistics or donors are needed and
        missing; no clip could be used.

    Examples
    --------
    >>> from xai_lib import ablation, activations, corpora, models
    >>> model = models.load("pocket")
    >>> clips = corpora.split(corpora.load("sample"))
    >>> train = corpora.balanced(clips.query("split == 'train'"), 8)
    >>> test = corpora.balanced(clips.query("split == 'test'"), 8)
    >>> controls = ablation.RandomControls(activations.activation_stats(model, train), n=5)
    >>> selection = ablation.Selection({2: [7, 11], 4: [3]})
    >>> result = ablation.sweep(model, test, selection, controls=controls, target="angry")
    >>> dict(result["target_change"].sizes)
    {'clip': 8, 'layer': 2, 'mode': 1, 'neuron_set': 8}
    >>> result["neuron_set"].values.tolist()
    ['selected', 'random 1', 'random 2', 'random 3', 'random 4', 'random 5', 'most active', 'writes most']
    """
    arguments.require_types(model, clips, selection, controls, edit, readouts)
    targets.require_one_label(model)
    targets.check(model, target)
    clips = as_clips(clips, sample_rate)
    selection.check(model)
    edit.check(model, selection.part, clips)
    if controls is not None:
        controls.check(model, selection.part, edit.modes)
    for readout in readouts:
        readout.check()
    names = [readout.name for readout in readouts]
    if len(set(names)) < len(names):
        raise ValueError(f"readouts contains one kind twice: {', '.join(names)}")
    arguments.warn_on_speaker_leakage(clips, selection, controls, edit, readouts)

    neuron_sets = _neuron_sets(model, selection, controls, seed)
    control_modes = edit.modes if controls is None or controls.modes is None else controls.modes
    grid = ConditionGrid(neuron_sets, edit.modes, control_modes)
    sites = [hooks.Site(layer, selection.part) for layer in selection.neurons]

    measurements: dict[object, _Measurement] = {}
    logits_of_donors: list[np.ndarray] = []
    skipped: dict = {}
    usable_clips = donors.usable(model, clips, edit.frames, skipped, edit.donors, sites)
    for index, waveform, speech, donor_values, donor_logits in usable_clips:
        noise_seed = targets.key(seed, index, targets.SEED_NOISE)
        plans = []
        for condition in grid.conditions:
            options = {"speech": speech, "donor_values": donor_values, "seed": noise_seed}
            plans.append(condition.plan(edit, selection.part, **options))
        measurements[index] = _measure(model, waveform, plans, grid, readouts, target, batch)
        if donor_logits is not None:
            logits_of_donors.append(donor_logits.cpu().numpy())

    result = _assemble(model, clips, measurements, grid, selection, readouts)
    if edit.donors is not None:
        result["donor_logits"] = ("clip", "label"), np.stack(logits_of_donors)
        donor_labels = edit.donors["label"][list(measurements)].to_numpy(object)
        result = result.assign_coords(donor_label=("clip", donor_labels))
    result["is_selected"] = selection.mask(model)
    if controls is not None:
        result = result.assign(controls.matching(selection, neuron_sets).data_vars)
    attributes = {
        "part": selection.part,
        "frames": edit.frames_as_text(),
        "window": edit.window,
        "seed": seed,
        "size_classes": (controls.size_classes if controls else None) or "by width",
    }
    return result.assign_attrs(results.attributes(model, skipped, method="ablation", **attributes))


@dataclass
class _Measurement:
    """What is measured of one clip: rows are the clean clip, and then each condition of the grid."""

    logits: np.ndarray  # [1 + condition, label]
    target_change: np.ndarray  # [condition]
    target_name: str
    read: dict[str, np.ndarray]  # by readout [1 + condition, readout_layer, column]
    direct_effect: np.ndarray | None  # [condition, readout_layer, feature]


def _measure(model, waveform, plans, grid, readouts, target, batch) -> _Measurement:
    """Run the edited copies of one clip, and read them."""
    clean: dict[hooks.Site, torch.Tensor] = {}
    change = RelativeChange()
    functions = {change.name: change.functions(model, clean)}
    widths = [len(change.names)]
    direct_effects = None
    for readout in readouts:
        functions[readout.name] = readout.functions(model, waveform)
        widths.append(len(readout.names))
        if isinstance(readout, Decoders) and _has_direct_effects(model):
            direct_effects = readout.direct_effects(functions[readout.name], clean)
    if direct_effects is not None:
        recording_plans = []
        for number, (plan, condition) in enumerate(zip(plans, grid.conditions)):
            recording_plans.append(direct_effects.recording(number, plan, condition.last_layer))
        plans = recording_plans

    joint = joint_functions(model.sites(), functions, clean)
    logits, values = execution.cascade_read(model, waveform, plans, joint, batch=batch)

    logits = logits.double()
    classes = targets.resolve(model, target, logits[:1])
    log_odds = targets.value(model, logits, classes, "log_odds")
    by_layer = torch.stack([values[site] for site in joint], dim=1)  # [row, readout_layer, all columns]
    columns = by_layer.split(widths, dim=-1)
    return _Measurement(
        logits=_as_numpy(logits),
        target_change=_as_numpy(log_odds[1:] - log_odds[0]),
        target_name=targets.name(model, classes),
        read={name: _as_numpy(part) for name, part in zip(functions, columns)},
        direct_effect=None if direct_effects is None else _as_numpy(direct_effects.values()),
    )


def _assemble(model, clips, measurements, grid, selection, readouts) -> xr.Dataset:
    """Put the measurements of all clips into one result."""
    coordinates = results.coordinates(clips, measurements)
    # The dim `label` is that of the model's classes, so that the clip's own label goes by another name.
    _, true_labels = coordinates.pop("label", ("clip", np.full(len(measurements), None)))
    label_numbers = [model.labels.index(name) if name in model.labels else -1 for name in true_labels]

    dims = ("clip", selection.dim, "mode", "neuron_set")
    variables = _variables(list(measurements.values()), grid, dims, readouts, np.array(label_numbers))
    result = xr.Dataset()
    for name, values in variables.items():
        if "readout_layer" in values.dims and not name.startswith("clean_"):
            values = mask_unreached(values, selection, at_edit=name in RelativeChange.names)
        values = values.transpose(*dims, "readout_layer", ..., missing_dims="ignore")
        result[name] = values if name.startswith("clean_") else values.astype(np.float32)

    coordinates |= {
        "emotion": ("clip", true_labels),
        "target": ("clip", [measurement.target_name for measurement in measurements.values()]),
        selection.dim: grid.layer_groups,
        "mode": grid.modes,
        "neuron_set": [neuron_set.name for neuron_set in grid.neuron_sets],
        "kind": ("neuron_set", [neuron_set.kind for neuron_set in grid.neuron_sets]),
        "label": model.labels,
        "readout_layer": range(model.n_layers + 1),
    }
    for readout in readouts:
        if isinstance(readout, Decoders):
            coordinates["unit"] = ("feature", readout.fitted["unit"].values)
    return result.assign_coords(coordinates)


def _variables(measurements, grid, dims, readouts, label_numbers) -> dict[str, xr.DataArray]:
    """Return the variables of a result by name, of the edits [*dims, ...], and of the clean clip [clip, ...]."""

    def edited(rows_of_clips, *further_dims):
        arranged = np.stack([grid.arrange(rows) for rows in rows_of_clips])
        return xr.DataArray(arranged, dims=(*dims, *further_dims))

    clean_logits = xr.DataArray(np.stack([clip.logits[0] for clip in measurements]), dims=("clip", "label"))
    edited_logits = edited([clip.logits[1:] for clip in measurements], "label")
    variables = prediction(edited_logits, clean_logits, label_numbers)
    variables["target_change"] = edited([clip.target_change for clip in measurements])

    for readout in (RelativeChange(), *readouts):
        read = [clip.read[readout.name] for clip in measurements]
        column_dim = readout.dim or "column"
        edited_values = edited([rows[1:] for rows in read], "readout_layer", column_dim)
        clean_values = xr.DataArray(np.stack([rows[0] for rows in read]), dims=("clip", "readout_layer", column_dim))
        edited_values[column_dim] = readout.names
        clean_values[column_dim] = readout.names
        if readout.dim is None:
            edited_values = edited_values.squeeze("column", drop=True)
            clean_values = clean_values.squeeze("column", drop=True)
        variables |= readout.variables(edited_values, clean_values)

    if measurements[0].direct_effect is not None:
        direct = edited([clip.direct_effect for clip in measurements], "readout_layer", "feature")
        variables["direct_effect"] = direct
        variables["indirect_effect"] = variables["decoded_change"] - direct
    return variables


def _neuron_sets(model, selection, controls, seed) -> dict[object, list[NeuronSet]]:
    """Return the neuron sets of each layer or group, the selected neurons first."""
    sets = {}
    for layer_group in selection.layer_groups:
        sets[layer_group] = [NeuronSet(SELECTED, SELECTED, selection.neurons_of(layer_group))]
        if controls is not None:
            sets[layer_group] += controls.neuron_sets(model, selection, layer_group, seed)
    return sets


def _has_direct_effects(model) -> bool:
    """Return whether direct effects can be recorded: layers add to the residual stream and leave it as it is.

    Then an edit is in all later ones. Where forward passes cannot resume, the clean states are not known before the
    edits.
    """
    architecture = model.architecture
    return architecture.resumable and architecture.residual and architecture.norms(1) is None


def _as_numpy(values: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array of float64."""
    return values.cpu().double().numpy()
