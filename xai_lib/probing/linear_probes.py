"""Linear probes of phonetics and emotion at each layer, with control tasks.

A probe may be good because it memorised the types of the examples. Its control task gives each type a class at random:
what the probe can do beyond that, its selectivity, is evidence about the layer.
"""

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

TASKS = {  # the column that is predicted, and those that define the types which a control task keeps together
    "manner": ("manner", ("phoneme", "manner")),
    "statement": ("statement", ("statement", "label")),
    "emotion": ("label", ("label", "intensity")),
}
MIN_EXAMPLES_PER_TYPE = 5  # training examples of a type, on average, for a control task that can be learnt


@torch.no_grad()
def read(model, clips, *, part="hidden_state", layers="all", sample_rate=None) -> xr.Dataset:
    """Read the inputs of the probes, from one forward pass per clip.

    Returns
    -------
    Dataset
        `clip_mean` [clip, layer, neuron], over the frames of speech. Where phonemes are timed, also `sound_mean`
        [sound, layer, neuron]: a sound is a phoneme in a clip, its mean over all frames whose centres lie in it, with
        the coordinates `phoneme`, `manner` and `sound_clip`. So every phoneme counts once in a clip, however long.
    """
    clips = as_clips(clips, sample_rate)
    sites, timed = model.sites(part, layers), phonemes.timed(clips)
    timed = {} if timed is None else dict(iter(timed.groupby("clip")))
    skipped, rows, sound_means, sounds = {}, {}, [], []
    for index, waveform, speech in usable(model, clips, "speech", skipped, silent="all"):
        with hooks.capture(model, sites) as captured:
            execution.prefix(model, model.tensor(waveform), sites[-1].layer)
        hidden = torch.stack([captured[site][0] for site in sites])
        times = audio.frame_times(len(speech), model.sample_rate, hop=model.hop, span=model.span)
        clip_sounds = _sounds(timed[index], times) if index in timed else []
        masks = np.array([speech, *(mask for *_, mask in clip_sounds)], float)
        share = torch.as_tensor(masks / masks.sum(axis=1, keepdims=True), dtype=hidden.dtype, device=hidden.device)
        rows[index], *means = (share @ hidden).transpose(0, 1).cpu().numpy()
        sound_means += means
        sounds += [(phoneme, kind, index) for phoneme, kind, _ in clip_sounds]
    hidden = np.stack(list(rows.values()))
    dataset = xr.Dataset(
        {"clip_mean": (("clip", "layer", "neuron"), hidden)},
        {**results.coordinates(clips, rows), **results.axes(sites, hidden)},
        results.attributes(model, skipped, method="probes", part=part),
    )
    if not sound_means:
        return dataset
    coords = {name: ("sound", list(values)) for name, values in zip(("phoneme", "manner", "sound_clip"), zip(*sounds))}
    dataset = dataset.assign(sound_mean=(("sound", "layer", "neuron"), np.stack(sound_means)))
    return dataset.assign_coords(coords)


def layer_probes(train, test, *, components=16, controls=20, seed=0) -> xr.Dataset:
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
        `accuracy`, `control` and `selectivity`, their difference, [task, layer, speaker]: recalls of the classes
        (manners of articulation, statements, emotions) averaged, for each test speaker. `each_control` [task, layer,
        speaker, control_task], each control task by itself. `chance` [task], the chance level. Controls and selectivity
        are NaN for a task with no more types than classes, or under 5 training examples a type on average: what cannot
        be memorised is no control, and would pass for selectivity. Tasks are "manner" (of sounds), "statement" and
        "emotion" (of clips), those that have examples.

    Raises
    ------
    ValueError
        A speaker is on both sides or unknown, or no task has two classes.

    References
    ----------
    Hewitt and Liang (2019), Designing and interpreting probes with control tasks, EMNLP; they, too, advise small
    probes. The probe here is that of `heads`, logistic regression on standardised values, with classes weighted alike.
    """
    if not all(map(results.speakers_known, (train, test))):
        raise ValueError("every clip needs its speaker: probes are tested on speakers outside their training set")
    train_speakers, test_speakers = (
        {identity.comparable_name(name) for name in d["speaker"].values} for d in (train, test)
    )
    common = train_speakers & test_speakers
    if common:
        raise ValueError(f"speaker {min(common)} is in training and in test: split the clips by speaker")
    datasets = {}
    for task in TASKS:
        (x, examples), (x_test, test_examples) = (_examples(data, task) for data in (train, test))
        classes = examples["class"].nunique()
        if not 1 < classes < len(examples) or test_examples.empty:
            continue
        rng = np.random.default_rng(seed)
        types = pd.concat([examples, test_examples])[["type", "class"]].drop_duplicates("type")
        types = types.set_index("type")["class"]
        shuffled = (types.sample(frac=1, random_state=rng).set_axis(types.index) for _ in range(controls))
        tasks = [
            (examples["type"].map(class_of_type), test_examples["type"].map(class_of_type))
            for class_of_type in [types, *shuffled]
        ]
        accuracy, *control = _recalls(x, x_test, tasks, test_examples["speaker"], components)
        learnable = len(types) > types.nunique() and len(examples) >= MIN_EXAMPLES_PER_TYPE * examples["type"].nunique()
        control = np.where(learnable, np.reshape(control, (controls, *accuracy.shape)), np.nan)
        variables = {
            "accuracy": (("speaker", "layer"), accuracy),
            "each_control": (("control_task", "speaker", "layer"), control),
        }
        coords = {"speaker": accuracy.index.to_numpy(), "layer": train["layer"].values}
        datasets[task] = xr.Dataset({**variables, "chance": 1 / classes}, coords)
    if not datasets:
        raise ValueError("no task has two classes: the clips need different labels, statements or phonemes")
    result = xr.concat(datasets.values(), pd.Index([*datasets], dtype=object, name="task"), join="outer")
    control, attrs = (
        result["each_control"].mean("control_task"),
        {"components": components or "all", "controls": controls},
    )
    result = result.assign(control=control, selectivity=result["accuracy"] - control)
    return result.transpose("task", "layer", "speaker", "control_task").assign_attrs(attrs)


def over_speakers_and_controls(probes, name="selectivity") -> xr.Dataset:
    """Compute the mean of `selectivity` or `control` of `layer_probes`, and its 95 % interval.

    The interval is for other speakers and control tasks. All speakers have the same control tasks, whose variance an
    interval over speakers leaves out: here both half widths, each by its own t, are added in quadrature. Of `control`
    that is the error of their mean. Of `selectivity` it is the SD of one more control task: classes that have nothing
    in common are one more shuffle of the types, as easy or as hard as it happens to be, so that only an interval above
    0 shows that the classes are more than a shuffle. For the mean over layers give `probes.mean("layer")`. The
    result is a Dataset as returned by `statistics.over_speakers`, with no interval under 8 speakers or 2 control tasks.
    """
    interval, n = statistics.over_speakers(probes[name]), probes.sizes["control_task"]
    control_half_width = probes["each_control"].mean("speaker").std("control_task", ddof=1) * stats.t.ppf(0.975, n - 1)
    control_half_width = control_half_width * np.sqrt(1 / n if name == "control" else 1 + 1 / n)
    # The interval is slightly too wide, if anything: what both half widths share counts twice.
    half = np.hypot(interval["high"] - interval["mean"], control_half_width)
    return interval.assign(low=interval["mean"] - half, high=interval["mean"] + half)


def _sounds(timed, times):
    """Return (phoneme, manner, bool [frame]) of each phoneme of a clip in which the centre of a frame lies."""
    sounds = [
        (*name, np.any([(row.start <= times) & (times < row.end) for row in part.itertuples()], axis=0))
        for name, part in timed.groupby(["phoneme", "manner"])
    ]
    return [sound for sound in sounds if sound[-1].any()]


def _metadata(data, dim):
    """Return a table of what is known of each clip, or sound."""
    table = pd.DataFrame({name: data[name].values for name in data.coords if data[name].dims == ("clip",)})
    if dim == "sound":
        table = table.set_index("clip", drop=False).loc[data["sound_clip"].values].reset_index(drop=True)
        table = table.assign(phoneme=data["phoneme"].values, manner=data["manner"].values)
    return table if results.speakers_known(data) else table.assign(speaker="unknown")


def _examples(data, task):
    """Return values [example, layer, neuron] and a table (`class`, `type`, `speaker`) of the examples with a class."""
    dim, (column, kind) = "sound" if task == "manner" else "clip", TASKS[task]
    if f"{dim}_mean" not in data:
        return None, pd.DataFrame(columns=["class", "type", "speaker"])
    table = _metadata(data, dim)
    kind = table[[name for name in kind if name in table]].astype(object).fillna("").astype(str).agg(" ".join, axis=1)
    table = table.assign(**{"class": table.get(column, np.nan), "type": kind})[["class", "type", "speaker"]]
    has_class = table["class"].notna().to_numpy()
    return data[f"{dim}_mean"].values[has_class], table[has_class].astype(str).reset_index(drop=True)


def _recalls(x, x_test, tasks, speakers, components):
    """Return recalls averaged over classes, [speaker, layer], for each of the tasks: classes of x and of x_test.

    The probes are fitted on x [example, layer, neuron].
    """
    correct = [{} for _ in tasks]
    for layer in tqdm(range(x.shape[1]), "layers", leave=False, delay=2):
        pca = [PCA(min(components, x.shape[2], len(x) - 1), svd_solver="full")] if components else []
        reduce = make_pipeline(StandardScaler(), *pca).fit(x[:, layer])
        train_values, test_values = map(reduce.transform, (x[:, layer], x_test[:, layer]))
        for (classes, test_classes), correct_by_layer in zip(tasks, correct):
            probe = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
            probe.set_params(solver="newton-cholesky" if components else "lbfgs")  # with few columns twice as fast
            probe = probe if classes.nunique() > 1 else DummyClassifier()  # a control of very few clips
            correct_by_layer[layer] = probe.fit(train_values, classes).predict(test_values) == test_classes.to_numpy()
    keys = [[speakers.to_numpy(), test_classes.to_numpy()] for _, test_classes in tasks]
    return [pd.DataFrame(task).groupby(key).mean().groupby(level=0).mean() for task, key in zip(correct, keys)]


def _typical(shares, shape):
    """Return the share of the median neuron, [speaker, layer]; NaN where a speaker's neurons do not vary at all."""
    return pd.DataFrame(shares.reshape(-1, shape[-1])).median(axis=1).to_numpy().reshape(shape[:-1])
