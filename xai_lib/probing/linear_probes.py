"""Linear probes of phonetics and emotion at each layer, with control tasks.

A probe may be good because it memorised the types of the examples. Its control task gives each type a class at random:
what the probe can do beyond that, its selectivity, is evidence about the layer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from .. import audio, execution, hooks, results, statistics
from ..activations import usable
from ..corpora import as_clips, identity, phonemes
from ..models import require_model

if TYPE_CHECKING:
    from ..models import Model


@dataclass(frozen=True)
class Task:
    """What a probe predicts, and the columns that define the types which a control task keeps together."""

    class_column: str
    type_columns: tuple[str, ...]


TASKS = {
    "manner": Task("manner", ("phoneme", "manner")),
    "statement": Task("statement", ("statement", "label")),
    "emotion": Task("label", ("label", "intensity")),
}
MIN_EXAMPLES_PER_TYPE = 5  # training examples of a type, on average, for a control task that can be learnt


@torch.no_grad()
def read(
    model: Model,
    clips,
    *,
    part: str = "hidden_state",
    layers: str | Sequence[int] = "all",
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Read the inputs of the probes, from one forward pass per clip.

    Returns
    -------
    Dataset
        `clip_mean` [clip, layer, neuron], over the frames of speech. Where phonemes are timed, also `sound_mean`
        [sound, layer, neuron]: a sound is a phoneme in a clip, its mean over all frames whose centres lie in it, with
        the coordinates `phoneme`, `manner` and `sound_clip`. So every phoneme counts once in a clip, however long.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    sites = model.sites(part, layers)
    timed = phonemes.timed(clips)
    phonemes_by_clip = {} if timed is None else dict(iter(timed.groupby("clip")))

    skipped = {}
    clip_means = {}
    sound_means = []
    sound_rows = []
    for index, waveform, speech in usable(model, clips, "speech", skipped, silent="all"):
        with hooks.capture(model, sites) as captured:
            execution.prefix(model, model.tensor(waveform), sites[-1].layer)
        hidden = torch.stack([captured[site][0] for site in sites])  # [layer, frame, neuron]

        sounds = []
        if index in phonemes_by_clip:
            times = audio.frame_times(len(speech), model.sample_rate, hop=model.hop, span=model.span)
            sounds = _sounds(phonemes_by_clip[index], times)
        speech_mean, *means = _means_over_frames(hidden, [speech] + [sound.frames for sound in sounds])
        clip_means[index] = speech_mean
        sound_means.extend(means)
        for sound in sounds:
            sound_rows.append({"phoneme": sound.phoneme, "manner": sound.manner, "sound_clip": index})

    stacked = np.stack(list(clip_means.values()))
    dataset = xr.Dataset(
        {"clip_mean": (("clip", "layer", "neuron"), stacked)},
        {**results.coordinates(clips, clip_means), **results.axes(sites, stacked)},
        results.attributes(model, skipped, method="probes", part=part),
    )
    if not sound_means:
        return dataset
    dataset["sound_mean"] = ("sound", "layer", "neuron"), np.stack(sound_means)
    for name, values in pd.DataFrame(sound_rows).items():
        dataset.coords[name] = "sound", values.tolist()
    return dataset


def layer_probes(
    train: xr.Dataset, test: xr.Dataset, *, components: int | None = 16, controls: int = 20, seed: int = 0
) -> xr.Dataset:
    """Measure how well a linear probe of each layer predicts manners, statements and emotions of unseen speakers.

    Parameters
    ----------
    train, test : Dataset
        As returned by `read`, on clips of different speakers.
    components : int, optional
        Principal components of a layer that a probe uses; None: all neurons. With all it can memorise the few phonemes
        of a small corpus, and does the control task as well as the real one.
    controls : int
        Control tasks, averaged. Each type of example (a phoneme; an emotion in a statement; an emotion at an intensity)
        gets the class of another type at random, in training and test alike. So classes have as many types as before,
        and nothing in common but what is memorised.

    Returns
    -------
    Dataset
        `accuracy`, `control` and `selectivity`, their difference, [task, layer, speaker]. Despite its name `accuracy`
        is the unweighted average recall: recalls of the classes (manners of articulation, statements, emotions)
        averaged, for each test speaker. So is `control`, of the control tasks; `each_control` [task, layer, speaker,
        control_task] is each of them by itself. `chance` [task], the chance level. Controls and selectivity are NaN for
        a task with no more types than classes, or under 5 training examples a type on average: what cannot be memorised
        is no control, and would pass for selectivity. Tasks are "manner" (of sounds), "statement" and "emotion" (of
        clips), those that have examples, of two classes or more; attrs["tasks_left_out"] lists the others, as JSON.

    Raises
    ------
    ValueError
        A speaker is on both sides or unknown, no task has two classes, or `train` or `test` is a table of clips.

    References
    ----------
    Hewitt and Liang (2019), Designing and interpreting probes with control tasks, EMNLP; they, too, advise small
    probes. The probe here is that of `heads`, logistic regression on standardised values, with classes weighted alike.
    """
    for data in (train, test):
        if not isinstance(data, xr.Dataset):
            raise ValueError(
                f"train and test must be Datasets, not a {type(data).__name__}: pass linear_probes.read(model, clips)"
            )
    if not (results.speakers_known(train) and results.speakers_known(test)):
        raise ValueError("every clip needs its speaker: probes are tested on speakers outside their training set")
    train_speakers = {identity.comparable_name(name) for name in train["speaker"].values}
    test_speakers = {identity.comparable_name(name) for name in test["speaker"].values}
    common = train_speakers & test_speakers
    if common:
        raise ValueError(f"speaker {min(common)} is in training and in test: split the clips by speaker")

    by_task = {}
    for task in TASKS:
        values, examples = _examples(train, task)
        test_values, test_examples = _examples(test, task)
        n_classes = examples["class"].nunique()
        if not 1 < n_classes < len(examples) or test_examples.empty:
            continue

        class_of_type = _class_of_type(examples, test_examples)
        rng = np.random.default_rng(seed)
        labellings = [_Labelling.from_types(class_of_type, examples, test_examples)]
        for _ in range(controls):
            shuffled = class_of_type.sample(frac=1, random_state=rng).set_axis(class_of_type.index)
            labellings.append(_Labelling.from_types(shuffled, examples, test_examples))
        accuracy, *recalls = _recalls(values, test_values, labellings, test_examples["speaker"], components)

        each_control = np.reshape(recalls, (controls, *accuracy.shape))
        more_types = len(class_of_type) > class_of_type.nunique()
        examples_per_type = len(examples) / examples["type"].nunique()
        if not more_types or examples_per_type < MIN_EXAMPLES_PER_TYPE:
            each_control = np.full(each_control.shape, np.nan)
        by_task[task] = xr.Dataset(
            {
                "accuracy": (("speaker", "layer"), accuracy),
                "each_control": (("control_task", "speaker", "layer"), each_control),
                "chance": 1 / n_classes,
            },
            {"speaker": accuracy.index.to_numpy(), "layer": train["layer"].values},
        )
    if not by_task:
        raise ValueError("no task has two classes: the clips need different labels, statements or phonemes")

    task_names = pd.Index(list(by_task), dtype=object, name="task")
    result = xr.concat(by_task.values(), task_names, join="outer")
    control = result["each_control"].mean("control_task")
    result = result.assign(control=control, selectivity=result["accuracy"] - control)
    result = result.transpose("task", "layer", "speaker", "control_task")
    tasks_left_out = json.dumps([task for task in TASKS if task not in by_task])
    return result.assign_attrs(components=components or "all", controls=controls, tasks_left_out=tasks_left_out)


def over_speakers_and_controls(probes: xr.Dataset, name: str = "selectivity") -> xr.Dataset:
    """Compute the mean of `selectivity` or `control` of `layer_probes`, and its 95 % interval.

    The interval is for other speakers and control tasks. All speakers have the same control tasks, whose variance an
    interval over speakers leaves out: here both half widths, each by its own t, are added in quadrature. Of `control`
    that is the error of their mean. Of `selectivity` it is the SD of one more control task: classes that have nothing
    in common are one more shuffle of the types, as easy or as hard as it happens to be, so that only an interval above
    0 shows that the classes are more than a shuffle. For the mean over layers give `probes.mean("layer")`. The
    result is a Dataset as returned by `statistics.over_speakers`, with no interval under 8 speakers or 2 control tasks.
    """
    interval = statistics.over_speakers(probes[name])
    speakers_half_width = interval["high"] - interval["mean"]

    n = probes.sizes["control_task"]
    control_sd = probes["each_control"].mean("speaker").std("control_task", ddof=1)
    # Of the mean of the controls, or of one more control about that mean.
    control_error = control_sd * np.sqrt(1 / n if name == "control" else 1 + 1 / n)
    control_half_width = control_error * stats.t.ppf(0.975, n - 1)

    # The interval is slightly too wide, if anything: what both half widths share counts twice.
    half_width = np.hypot(speakers_half_width, control_half_width)
    return interval.assign(low=interval["mean"] - half_width, high=interval["mean"] + half_width)


@dataclass(frozen=True)
class _Sound:
    """A phoneme in a clip, and the frames [frame] (bool) whose centres lie in it."""

    phoneme: str
    manner: str
    frames: np.ndarray


def _sounds(timed, times):
    """Return the sounds of a clip's timed phonemes, those in which the centre of a frame lies; `times` [frame] (s)."""
    sounds = []
    for (phoneme, manner), occurrences in timed.groupby(["phoneme", "manner"]):
        frames = np.zeros(len(times), bool)
        for row in occurrences.itertuples():
            frames |= (row.start <= times) & (times < row.end)
        if frames.any():
            sounds.append(_Sound(phoneme, manner, frames))
    return sounds


def _means_over_frames(hidden, masks):
    """Average [layer, frame, neuron] over the frames of each mask [frame]: [mask, layer, neuron]."""
    masks = np.array(masks, float)
    share = torch.as_tensor(masks / masks.sum(axis=1, keepdims=True), dtype=hidden.dtype, device=hidden.device)
    return (share @ hidden).transpose(0, 1).cpu().numpy()


def _metadata(data, dim):
    """Return a table of what is known of each clip, or sound."""
    table = pd.DataFrame({name: data[name].values for name in data.coords if data[name].dims == ("clip",)})
    if dim == "sound":
        table = table.set_index("clip", drop=False).loc[data["sound_clip"].values].reset_index(drop=True)
        table = table.assign(phoneme=data["phoneme"].values, manner=data["manner"].values)
    return table if results.speakers_known(data) else table.assign(speaker="unknown")


def _examples(data, task):
    """Return values [example, layer, neuron] and a table (`class`, `type`, `speaker`) of the examples with a class."""
    dim = "sound" if task == "manner" else "clip"
    if f"{dim}_mean" not in data:
        return None, pd.DataFrame(columns=["class", "type", "speaker"])

    metadata = _metadata(data, dim)
    type_columns = [name for name in TASKS[task].type_columns if name in metadata]
    types = metadata[type_columns].astype(object).fillna("").astype(str)
    table = pd.DataFrame(
        {
            "class": metadata.get(TASKS[task].class_column, np.nan),
            "type": types.agg(" ".join, axis=1),
            "speaker": metadata["speaker"],
        }
    )
    has_class = table["class"].notna().to_numpy()
    return data[f"{dim}_mean"].values[has_class], table[has_class].astype(str).reset_index(drop=True)


def _class_of_type(examples, test_examples):
    """Return the class of each type of example, as a Series by type."""
    types = pd.concat([examples, test_examples]).drop_duplicates("type")
    return types.set_index("type")["class"]


@dataclass(frozen=True)
class _Labelling:
    """Classes of the training examples and of the test examples: the real ones, or those of a control task."""

    train: pd.Series
    test: pd.Series

    @classmethod
    def from_types(cls, class_of_type, examples, test_examples):
        """Give each example the class of its type."""
        return cls(examples["type"].map(class_of_type), test_examples["type"].map(class_of_type))


def _recalls(values, test_values, labellings, speakers, components):
    """Fit probes of each layer and return their unweighted average recalls, a table [speaker, layer] per labelling.

    `values` and `test_values` are [example, layer, neuron]; `speakers` are those of the test examples.
    """
    correct = [{} for _ in labellings]  # for each labelling {layer: bool [test example]}
    for layer in tqdm(range(values.shape[1]), "layers", leave=False, delay=2):
        reduction = make_pipeline(StandardScaler())
        if components:
            n_components = min(components, values.shape[2], len(values) - 1)
            reduction = make_pipeline(StandardScaler(), PCA(n_components, svd_solver="full"))
        reduction.fit(values[:, layer])
        x = reduction.transform(values[:, layer])
        x_test = reduction.transform(test_values[:, layer])
        for labelling, correct_by_layer in zip(labellings, correct):
            probe = _probe(labelling.train, few_columns=bool(components)).fit(x, labelling.train)
            correct_by_layer[layer] = probe.predict(x_test) == labelling.test.to_numpy()

    recalls = []
    for labelling, correct_by_layer in zip(labellings, correct):
        groups = [speakers.to_numpy(), labelling.test.to_numpy()]
        recall_by_class = pd.DataFrame(correct_by_layer).groupby(groups).mean()
        recalls.append(recall_by_class.groupby(level=0).mean())
    return recalls


def _probe(classes, *, few_columns):
    """Return an unfitted probe of these classes [example]."""
    if classes.nunique() < 2:  # a control of very few clips
        return DummyClassifier()
    solver = "newton-cholesky" if few_columns else "lbfgs"  # with few columns twice as fast
    return LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000, solver=solver)
