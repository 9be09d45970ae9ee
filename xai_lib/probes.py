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

from . import audio, execution, hooks, identity, phonemes, statistics, targets
from .activations import usable
from .corpora import as_clips

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
        {**targets.coordinates(clips, rows), **targets.axes(sites, hidden)},
        targets.attributes(model, skipped, method="probes", part=part),
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
    if not all(map(targets.speakers_known, (train, test))):
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


def selectivity(read, *, draws=400, seed=0) -> xr.Dataset:
    """Share of each neuron's variance within speakers that goes with phonetics, and that which goes with emotion.

    Both are shares of the same variance: that over the sounds of all clips (of `read`), each speaker's mean taken off.
    Where no phonemes are timed it is that over clips, and the statement stands for phonetics. Any labels explain some,
    and more of them more: so compare what is beyond chance, `excess`. Chance is `draws` shuffles: manners dealt out
    among the phonemes, the same way in all clips, since a neuron may know phonemes and nothing of manners; statements
    and emotions among the clips of a speaker.

    Returns
    -------
    Dataset
        [task, layer, neuron]: `eta_squared`, 0 to 1; `excess`, that less its mean over shuffles; `shuffled`, their 95th
        percentile; `p`, see below, and `q`, at a false discovery rate over all of them. `typical` [task, layer, speaker]
        is the share of the median neuron, less its mean over shuffles, in the variance of one speaker, of the effects
        that the labels have over all speakers; for intervals.

    Notes
    -----
    p is the greater of two. Over labels: the share of shuffles, the real one among them, whose share of variance is as
    great; that takes clips of a speaker to be independent, and a speaker's own way with an emotion for the emotion's.
    Over speakers: whether the means of the classes differ, beyond what speakers differ in them
    (`statistics.repeated_measures_test`, over speakers who have all classes); p is NaN where those are fewer than eight.
    Where speakers are not known the first stands alone. Sentences and phonemes are those of the corpus.

    Raises
    ------
    ValueError
        Neither phonetics nor emotion have two classes.
    """
    dim = "sound" if "sound_mean" in read else "clip"
    about, values = _about(read, dim), read[f"{dim}_mean"].transpose(dim, "layer", "neuron").values.astype(float)
    parts = {}
    for task in ("manner" if dim == "sound" else "statement", "emotion"):
        column, kind = TASKS[task]
        use = about[column].notna().to_numpy() if column in about else np.zeros(len(about), bool)
        if not use.any() or about[column][use].nunique() < 2:
            continue
        some, y = about[use], pd.DataFrame(values[use].reshape(use.sum(), -1))
        y = y - y.groupby(some["speaker"].to_numpy()).transform("mean")
        # What has a label of its own: a phoneme, of all a speaker's clips, or a clip.
        unit = some.groupby(["speaker", *(kind if task == "manner" else ["clip"])], sort=False).ngroup().to_numpy()
        sums, own = y.groupby(unit), some[~pd.Index(unit).duplicated()]  # units are numbered as they appear
        speakers = pd.get_dummies(own["speaker"])
        of = sums.sum().to_numpy(), sums.size().to_numpy(), speakers.to_numpy(float)
        total = (y**2).groupby(some["speaker"].to_numpy()).sum().loc[speakers.columns].to_numpy()  # [speaker, neuron]
        whole = np.where(total.sum(axis=0) > 1e-12, total.sum(axis=0), np.nan)  # NaN of a silent neuron
        total, names = np.where(total > 1e-12, total, np.nan), own[column].to_numpy(object)
        if task == "manner":
            types = own.groupby([*kind]).ngroup().to_numpy()
            _, first = np.unique(types, return_index=True)
            dealt = (given[types] for given in _shuffled(names[first], 0 * first, draws, seed))
        else:
            dealt = _shuffled(names, own["speaker"], draws, seed)
        real, null, shape, chance = _explained(names, *of), [], (len(total), *values.shape[1:]), 0
        for one in tqdm(dealt, f"shuffles of {task}", draws, leave=False, delay=2):
            found = _explained(one, *of)
            null.append(found.sum(axis=0) / whole)
            chance = chance + _typical(found / total, shape) / draws
        eta, null = real.sum(axis=0) / whole, np.array(null)
        p = (1 + (null >= eta - 1e-9).sum(axis=0)) / np.where(np.isnan(eta), np.nan, 1 + draws)
        if targets.speakers_known(read):
            p = np.maximum(p, statistics.repeated_measures_test(_class_means(y, some["speaker"], some[column])))
        found = {"eta_squared": eta, "excess": eta - null.mean(axis=0), "shuffled": np.quantile(null, 0.95, axis=0)}
        found = {name: (("layer", "neuron"), x.reshape(values.shape[1:])) for name, x in {**found, "p": p}.items()}
        found["typical"] = ("speaker", "layer"), _typical(real / total, shape) - chance
        parts[task] = xr.Dataset(found, {"speaker": speakers.columns.to_numpy(object)})
    if not parts:
        raise ValueError("there is nothing to tell apart: the clips need labels, statements or phonemes")
    out = xr.concat(parts.values(), pd.Index([*parts], dtype=object, name="task"), join="outer")
    out = out.assign_coords(layer=read["layer"].values, neuron=read["neuron"].values)
    out = out.transpose("task", "layer", "neuron", "speaker")
    return out.assign(q=(out["p"].dims, statistics.fdr(out["p"]))).assign_attrs(over=dim, draws=draws, seed=seed)


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
    return table if targets.speakers_known(read) else table.assign(speaker="unknown")


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


def _shuffled(labels, groups, draws, seed):
    """Labels [unit], dealt out at random within each group, `draws` times."""
    labels, groups, rng = np.asarray(labels, object), pd.factorize(groups)[0], np.random.default_rng(seed)
    home = np.argsort(groups, kind="stable")
    for _ in range(draws):
        mixed = np.empty_like(labels)
        mixed[home] = labels[np.lexsort((rng.random(len(labels)), groups))]
        yield mixed


def _class_means(values, speakers, classes):
    """Mean of values (a table [example, neuron]) of each speaker and class, [speaker, class, neuron]; NaN of none."""
    means = values.groupby([speakers.to_numpy(), classes.to_numpy()]).mean()
    every = pd.MultiIndex.from_product(means.index.levels)
    return means.reindex(every).to_numpy().reshape(*every.levshape, -1)


def _explained(labels, sums, sizes, speakers):
    """Sum of squares within speakers that the labels [unit] explain, and each speaker's part of it: [speaker, neuron].

    `sums` [unit, neuron] are of the unit's examples, less their speaker's mean; `sizes` [unit], how many there are;
    `speakers` [unit, speaker], 0 or 1.
    """
    codes = pd.get_dummies(labels).to_numpy(float)
    counts = (speakers * sizes[:, None]).T @ codes  # [speaker, label]
    gram = np.diag(counts.sum(axis=0)) - counts.T @ (counts / counts.sum(axis=1, keepdims=True))
    effects = np.linalg.pinv(gram, hermitian=True) @ (codes.T @ sums)
    return speakers.T @ (sums * (codes @ effects))
