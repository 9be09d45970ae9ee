"""Phonetics against emotion, layer by layer: what linear probes can read, and what each neuron varies with.

A probe may be good because it learnt the examples' types by heart. Its control task gives each type a class at random:
what the probe can do beyond that, its selectivity, tells about the layer.
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

TASKS = {  # what is told, and which types of example a control task keeps together
    "manner": ("manner", ("phoneme", "manner")),
    "statement": ("statement", ("statement", "label")),
    "emotion": ("label", ("label", "intensity")),
}
FEWEST = 5  # training examples of a type, on average, for a control task that can be learnt


@torch.no_grad()
def read(model, clips, *, part="block", layers="all", sample_rate=None) -> xr.Dataset:
    """What the probes read, from one forward per clip.

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
    skipped, rows, sounds, about = {}, {}, [], []
    for index, waveform, speech in usable(model, clips, "speech", skipped, silent="all"):
        with hooks.capture(model, sites) as seen:
            execution.prefix(model, model.tensor(waveform), sites[-1].layer)
        hidden = torch.stack([seen[site][0] for site in sites])
        at = audio.frame_times(len(speech), model.sample_rate, hop=model.hop, span=model.span)
        found = _sounds(timed[index], at) if index in timed else []
        masks = np.array([speech, *(mask for *_, mask in found)], float)
        share = torch.as_tensor(masks / masks.sum(axis=1, keepdims=True), dtype=hidden.dtype, device=hidden.device)
        rows[index], *means = (share @ hidden).transpose(0, 1).cpu().numpy()
        sounds += means
        about += [(phoneme, kind, index) for phoneme, kind, _ in found]
    hidden = np.stack(list(rows.values()))
    out = xr.Dataset(
        {"clip_mean": (("clip", "layer", "neuron"), hidden)},
        {**results.coordinates(clips, rows), **results.axes(sites, hidden)},
        results.attributes(model, skipped, method="probes", part=part),
    )
    if not sounds:
        return out
    coords = {name: ("sound", list(values)) for name, values in zip(("phoneme", "manner", "sound_clip"), zip(*about))}
    return out.assign(sound_mean=(("sound", "layer", "neuron"), np.stack(sounds))).assign_coords(coords)


def layer_probes(train, test, *, components=16, controls=20, seed=0) -> xr.Dataset:
    """How well a linear probe of each layer tells manners of articulation, statements and emotions of unseen speakers.

    Parameters
    ----------
    train, test : Dataset
        Of `read`, on clips of different speakers.
    components : int, optional
        Principal components of a layer that a probe is given; None: all neurons. With all it can learn the few phonemes
        of a small corpus by heart, and does the control task as well as the other.
    controls : int
        Control tasks, averaged. Each type of example (a phoneme; an emotion in a statement; an emotion at an intensity)
        is given the class of another type at random, in training and test alike. So classes have as many types as
        before, and nothing in common but what is learnt by heart.

    Returns
    -------
    Dataset
        `accuracy`, `control` and `selectivity`, their difference, [task, layer, speaker]: recalls of the classes
        averaged, for each test speaker. `each_control` [task, layer, speaker, deal], every control task by itself.
        `chance` [task]. Controls and selectivity are NaN for a task with no more types than classes, or under 5 training
        examples a type on average: what cannot be learnt by heart is no control, and would pass for selectivity. Tasks
        are "manner" (of sounds), "statement" and "emotion" (of clips), those that there are examples of.

    Raises
    ------
    ValueError
        A speaker is on both sides or not known, or there is nothing to tell apart.

    References
    ----------
    Hewitt and Liang (2019), Designing and interpreting probes with control tasks, EMNLP; they, too, advise small
    probes. Ours is that of `heads`, logistic regression on standardised values, with classes weighted alike.
    """
    if not all(map(results.speakers_known, (train, test))):
        raise ValueError("every clip needs its speaker: probes are tested on speakers whom they have not heard")
    trained, tested = ({identity.compared(name) for name in side["speaker"].values} for side in (train, test))
    both = trained & tested
    if both:
        raise ValueError(f"speaker {min(both)} is in training and in test: split the clips by speaker")
    found = {}
    for task in TASKS:
        (x, about), (new, asked) = (_examples(side, task) for side in (train, test))
        classes = about["class"].nunique()
        if not 1 < classes < len(about) or asked.empty:
            continue
        rng = np.random.default_rng(seed)
        types = pd.concat([about, asked])[["type", "class"]].drop_duplicates("type").set_index("type")["class"]
        dealt = [types, *(types.sample(frac=1, random_state=rng).set_axis(types.index) for _ in range(controls))]
        tasks = [(about["type"].map(given), asked["type"].map(given)) for given in dealt]
        real, *null = _recalls(x, new, tasks, asked["speaker"], components)
        learnt = len(types) > types.nunique() and len(about) >= FEWEST * about["type"].nunique()
        null = np.where(learnt, np.reshape(null, (controls, *real.shape)), np.nan)
        parts = {"accuracy": (("speaker", "layer"), real), "each_control": (("deal", "speaker", "layer"), null)}
        coords = {"speaker": real.index.to_numpy(), "layer": train["layer"].values}
        found[task] = xr.Dataset({**parts, "chance": 1 / classes}, coords)
    if not found:
        raise ValueError("there is nothing to tell apart: the clips need labels, statements or phonemes")
    out = xr.concat(found.values(), pd.Index([*found], dtype=object, name="task"), join="outer")
    control, about = out["each_control"].mean("deal"), {"components": components or "all", "controls": controls}
    out = out.assign(control=control, selectivity=out["accuracy"] - control)
    return out.transpose("task", "layer", "speaker", "deal").assign_attrs(about)


def over_speakers_and_controls(found, name="selectivity") -> xr.Dataset:
    """Mean of `selectivity` or `control` of `layer_probes`, and its 95 % interval for other speakers and control tasks.

    All speakers have the same control tasks, whose spread an interval over speakers leaves out: here both half widths,
    each by its own t, are added in quadrature. Of `control` that is the error of their mean. Of `selectivity` it is the
    spread of one more control task: classes that have nothing in common are one more deal of the types, as easy or as
    hard as it happens to be, so that only an interval above 0 says that the classes are more than a deal. For the mean
    over layers give `found.mean("layer")`. It is a Dataset as `statistics.over_speakers` gives, with no interval under 8
    speakers or 2 control tasks.
    """
    over, n = statistics.over_speakers(found[name]), found.sizes["deal"]
    spread = found["each_control"].mean("speaker").std("deal", ddof=1) * stats.t.ppf(0.975, n - 1)
    spread = spread * np.sqrt(1 / n if name == "control" else 1 + 1 / n)
    half = np.hypot(over["high"] - over["mean"], spread)  # a little wide, if anything: what they share counts twice
    return over.assign(low=over["mean"] - half, high=over["mean"] + half)


def _sounds(timed, at):
    """(phoneme, manner, bool [frame]) of each phoneme of a clip in which the centre of a frame lies."""
    masks = [
        (*name, np.any([(row.start <= at) & (at < row.end) for row in part.itertuples()], axis=0))
        for name, part in timed.groupby(["phoneme", "manner"])
    ]
    return [found for found in masks if found[-1].any()]


def _about(read, dim):
    """What is known of each clip, or sound: a table."""
    table = pd.DataFrame({name: read[name].values for name in read.coords if read[name].dims == ("clip",)})
    if dim == "sound":
        table = table.set_index("clip", drop=False).loc[read["sound_clip"].values].reset_index(drop=True)
        table = table.assign(phoneme=read["phoneme"].values, manner=read["manner"].values)
    return table if results.speakers_known(read) else table.assign(speaker="unknown")


def _examples(read, task):
    """Values [example, layer, neuron], and a table of `class`, `type` and `speaker`, of those that have a class."""
    dim, (column, kind) = "sound" if task == "manner" else "clip", TASKS[task]
    if f"{dim}_mean" not in read:
        return None, pd.DataFrame(columns=["class", "type", "speaker"])
    table = _about(read, dim)
    kind = table[[name for name in kind if name in table]].astype(object).fillna("").astype(str).agg(" ".join, axis=1)
    table = table.assign(**{"class": table.get(column, np.nan), "type": kind})[["class", "type", "speaker"]]
    use = table["class"].notna().to_numpy()
    return read[f"{dim}_mean"].values[use], table[use].astype(str).reset_index(drop=True)


def _recalls(x, new, tasks, speakers, components):
    """Recalls averaged over classes, [speaker, layer], of probes fitted on x [example, layer, neuron], for each of the
    tasks: classes of x and of new."""
    right = [{} for _ in tasks]
    for layer in tqdm(range(x.shape[1]), "layers", leave=False, delay=2):
        first = [PCA(min(components, x.shape[2], len(x) - 1), svd_solver="full")] if components else []
        reduce = make_pipeline(StandardScaler(), *first).fit(x[:, layer])
        seen, unseen = map(reduce.transform, (x[:, layer], new[:, layer]))
        for (classes, asked), found in zip(tasks, right):
            probe = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
            probe.set_params(solver="newton-cholesky" if components else "lbfgs")  # with few columns twice as fast
            probe = probe if classes.nunique() > 1 else DummyClassifier()  # a control of very few clips
            found[layer] = probe.fit(seen, classes).predict(unseen) == asked.to_numpy()
    keys = [[speakers.to_numpy(), asked.to_numpy()] for _, asked in tasks]
    return [pd.DataFrame(found).groupby(key).mean().groupby(level=0).mean() for found, key in zip(right, keys)]


def _typical(shares, shape):
    """The median neuron's, [speaker, layer]; NaN where a speaker's neurons do not vary at all."""
    return pd.DataFrame(shares.reshape(-1, shape[-1])).median(axis=1).to_numpy().reshape(shape[:-1])
