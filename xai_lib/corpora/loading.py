"""A corpus is a pandas DataFrame of clips: `path`, `label`, where known `speaker`, `sex`, `intensity` ...

Selection is plain pandas: ``clips.query("label == 'angry' and sex == 'female'")``. What was not taken in, and
why, is counted in ``clips.attrs["left_out"]``.
"""

import os
import re
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd

from ..audio.reading import SUFFIXES, Waveform, content_hash, rate_of, read, sources
from . import downloads, filenames, folders, identity, tables
from .clips import collect, with_usual_names
from .filenames import EMOTIONS

TABLES = (".csv", ".tsv")
RAVDESS_URL = "https://zenodo.org/records/1188976/files/"
RAVDESS_ZIP, RAVDESS_MD5 = "Audio_Speech_Actors_01-24.zip", "md5:bc696df654c87fed845eb13823edef8a"

_NOT_A_CLASS = re.compile(
    r"((actor|speaker|spk|subject|fold|part|disc)?[\s_-]*\d+|audio.*|wavs?|clips|train|test)$", re.IGNORECASE
)


def as_clips(clips, sample_rate=None, *, first=None) -> pd.DataFrame:
    """Make a table of clips, as functions here take it, of anything that is sound.

    Parameters
    ----------
    clips
        One of

        * a table with the column `path` or `audio`, which is returned as it is, its `audio` made ready: cells are
          waveforms, {"array": …, "sampling_rate": …} or {"bytes": …, "path": …} (the two forms of Hugging Face);
        * the path of a sound file, a folder (`from_folder`), a table (.csv, .tsv: `from_csv`), or a
          pattern such as "mine/*.wav"; a list of these;
        * a waveform, as numbers of numpy or torch or a list: [time], or [clip, time]; a list of waveforms of unequal
          length. Integers are scaled by the range of their type, floats have full scale 1;
        * a `datasets.Dataset`, also streamed, or a `DatasetDict`, whose parts become the column `split`.
    sample_rate : int, optional
        Hz, of waveforms: needed there, since a wrong rate is an error that nobody sees. Files name their own.
    first : int, optional
        Take so many clips only, of a `DatasetDict` so many of each part; needed of a data set that is streamed.

    Returns
    -------
    DataFrame
        A row per clip: `path`, or `audio` (`reading.Waveform`, `reading.Encoded`), and where known `label`, `speaker`
        and what else the source says. Whether a file can be read shows when it is read.

    Raises
    ------
    ValueError
        Waveforms without `sample_rate`, of a shape or type that no waveform has, or something that is no sound.
    FileNotFoundError
        A folder, table or pattern that holds no clips.
    """
    if first is not None and (isinstance(first, bool) or not isinstance(first, int) or first < 1):
        raise ValueError(f"first is a whole number from 1 up, not {first!r}")
    if _are_places(clips):
        table = _of_places(clips)
    else:
        table = collect(clips, sample_rate, first)
    if table.empty:
        raise ValueError("there are no clips: what was given is empty")
    in_parts = isinstance(clips, dict)  # of a DatasetDict, `first` of each were taken
    return table if first is None or in_parts else table.head(first)


def _are_places(clips) -> bool:
    """Whether this is a folder or a table in a file, or a list of paths some of which are."""
    if isinstance(clips, (str, os.PathLike)):
        return os.path.isdir(os.path.expanduser(clips)) or str(clips).lower().endswith(TABLES)
    if not isinstance(clips, (list, tuple)) or not all(isinstance(path, (str, os.PathLike)) for path in clips):
        return False
    return any(map(_are_places, clips))


def _of_places(paths) -> pd.DataFrame:
    """The clips of a folder, a table in a file, or of several such and of sound files beside them."""
    if isinstance(paths, (list, tuple)):
        tables_of_clips = [as_clips(path) for path in paths]
        left_out = sum((Counter(table.attrs.get("left_out", {})) for table in tables_of_clips), Counter())
        clips = pd.concat(tables_of_clips, ignore_index=True)
        again = pd.Series(map(os.path.realpath, clips["path"]), clips.index).duplicated()
        left_out["the same file again"] += int(again.sum())
        clips = clips[~again].reset_index(drop=True)
        if "speaker" in clips:
            clips = clips.assign(speaker=identity.unified(clips["speaker"]))
        clips.attrs["left_out"] = dict(+left_out)
        return clips
    path = os.path.expanduser(paths)
    return from_folder(path) if os.path.isdir(path) else from_csv(path)


def stretch(recording, start, end, sample_rate=None) -> pd.DataFrame:
    """Cut a stretch out of a recording, as a table of one clip: for attribution of a moment in a long one.

    Parameters
    ----------
    recording
        One clip, as in `as_clips`.
    start, end : float
        Seconds.

    Raises
    ------
    ValueError
        It is not one recording, or the stretch does not lie in it.
    """
    table = as_clips(recording, sample_rate)
    if len(table) != 1:
        raise ValueError(f"a stretch is cut out of one recording, and {len(table)} clips were given")
    source = sources(table).iloc[0]
    rate = rate_of(source)
    samples = read(source, rate)
    duration = len(samples) / rate
    if not 0 <= start < end <= duration + 1e-6:
        raise ValueError(
            f"a stretch from {start:g} to {end:g} s does not lie in {source}, which takes {duration:.2f} s"
        )
    samples = samples[round(start * rate) : round(end * rate)]
    cut = Waveform(samples, rate, f"{Path(str(source)).name}, {start:g} to {end:g} s")
    return table.drop(columns="path", errors="ignore").assign(audio=pd.Series([cut], index=table.index, dtype=object))


def load(
    name="sample", root=None, *, subset="main", download=False, url=RAVDESS_URL, known_hash=RAVDESS_MD5
) -> pd.DataFrame:
    """Load a corpus by name, or from a folder or CSV file.

    Parameters
    ----------
    name : str or path
        "sample" (bundled, synthetic), "ravdess", "crema-d", "emodb", "tess", "savee", "esc-50", "esc-10", a folder (see
        `from_folder`) or a CSV file (see `from_csv`).
    root : path, optional
        Where the corpus lies. For "ravdess" the default is ``$XAI_REAL_DATA/ravdess``, then the cache folder; for
        "sample" the project's ``data/sample`` (``$XAI_DATA`` names another ``data``); the others need it.
    subset : {"main", "one_factor", "all"}
        Of "sample": the emotional clips, or those in which one acoustic factor at a time was varied.
    download : bool
        Fetch RAVDESS speech (208 MB, CC BY-NC-SA 4.0) into the cache folder if it is not there yet: from Zenodo, or
        another `url` with its `known_hash`.

    Raises
    ------
    FileNotFoundError
        The corpus is not there, or holds no clips; the message says how to get it.
    ValueError
        Unknown name, or the archive is not what it should be.
    """
    key, name = str(name).lower(), Path(name).expanduser()
    root = None if root is None else Path(root).expanduser()
    if key == "sample":
        bundled = os.environ.get("XAI_DATA") or Path(__file__).resolve().parents[2] / "data"
        return _sample(root or Path(bundled, "sample"), subset)
    if key == "ravdess":
        return _named(key, root or _ravdess_root(download, url, known_hash))
    if key in filenames.KNOWN:
        if root is None:
            raise FileNotFoundError(f'where does {key} lie? Download it from its makers and pass root="its folder"')
        return _named(key, root)
    if name.is_dir():
        return from_folder(name)
    if name.is_file():
        return from_csv(name, root=root)
    known = f"sample, {', '.join(filenames.KNOWN)}, or the path of a folder or CSV file that exists"
    raise ValueError(f"unknown corpus {str(name)!r}: known are {known}")


def _sample(folder, subset):
    """The bundled corpus, with the factors that its clips were made from."""
    if not (folder / "factors.csv").is_file():
        get = "make it with `python data/make_sample.py`, or let the environment variable XAI_DATA name the data folder"
        raise FileNotFoundError(f"no sample corpus in {folder}: {get}")
    clips = pd.read_csv(folder / "factors.csv").rename(columns={"file": "path", "emotion": "label"})
    if subset not in ("all", *clips["subset"].unique()):
        raise ValueError(f"unknown subset {subset!r}: known are {', '.join(clips['subset'].unique())}, all")
    if subset != "all":
        clips = clips[clips["subset"] == subset].reset_index(drop=True)
    clips["path"] = [str(folder.resolve() / path) for path in clips["path"]]
    _check_files(clips["path"], folder / "factors.csv")
    clips["speaker"] = [f"sample-{actor:02d}" for actor in clips["actor"]]
    return _finish(clips.dropna(axis=1, how="all").assign(corpus="sample"), {})


def _ravdess_root(download, url, known_hash):
    """The folder in which RAVDESS lies, after fetching it if asked."""
    cache, real = downloads.cache() / "ravdess", os.environ.get("XAI_REAL_DATA")
    places = [Path(real, "ravdess"), cache] if real else [cache]
    there = [folder for folder in places if folder.is_dir()]
    if there or download:
        return there[0] if there else downloads.fetch(url.rstrip("/") + "/" + RAVDESS_ZIP, known_hash, cache)
    raise FileNotFoundError(
        f"RAVDESS was not found in {' or '.join(map(str, places))}. Load it with download=True (208 MB from Zenodo), "
        f'or fetch {RAVDESS_ZIP} from https://zenodo.org/records/1188976, unpack it, and pass root="its folder"'
    )


def _named(corpus, root, others=False):
    """A corpus whose file names say what is in them, anywhere below `root`."""
    found = folders.walk(root, (*SUFFIXES, *filenames.VIDEO))
    clips, left_out = filenames.table(corpus, found.files, others=others)
    left_out += found.left_out
    if clips.empty:
        example = " speech (names like 03-01-05-01-02-01-12.wav)" if corpus == "ravdess" else ""
        reason = f"left out: {dict(left_out)}" if left_out else f"there are no sound files, but {found.described()}"
        raise FileNotFoundError(f"no clips of {corpus}{example} below {root}; {reason}")
    if corpus.startswith("esc"):
        clips["label"] = _labels_of_esc(root, clips["path"])
    if corpus == "esc-10":
        clips["label"] = clips["label"].str.lower()
    return _finish(clips, left_out)


def _labels_of_esc(root, paths) -> list:
    """The class of each clip, of the corpus's own table where it lies below the root, else of the folders' names."""
    index = [path for path in folders.walk(root, (".csv",)).files if path.name == "esc50.csv"]
    if index:
        table = tables.read(index[0], names=("filename", "category")).drop_duplicates("filename")
        words = table.set_index("filename")["category"]
        return [words.get(Path(path).name) for path in paths]
    labels = _class_names({Path(path).parent for path in paths})
    return [labels[Path(path).parent] for path in paths]


def from_folder(path, pattern=None) -> pd.DataFrame:
    r"""All sound files below a folder.

    RAVDESS names are parsed (see `load`), and other files beside them have no label. Without such names, the label is the
    name of the folder that a file lies in, without a leading number ("001 - Dog bark" is "Dog bark"), when there are two
    such folders or more and none of them is named like a speaker or a part ("Actor_01", "1688", "wav", "train"); else,
    and of files that lie in no such folder, it is missing.

    Parameters
    ----------
    pattern : str, optional
        A regular expression over each file's path below the folder, written with "/" and found anywhere in it, whose
        named groups become columns: ``r"(?P<speaker>\w+)/(?P<label>\w+)_"``. Names are then not parsed otherwise; files
        that it does not match are left out and counted.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or no sound file below it; the message says what is there.
    ValueError
        The pattern is none, has no named group, or matches no file.
    """
    found = folders.walk(path, SUFFIXES)
    if not found.files:
        known = ", ".join(SUFFIXES)
        raise FileNotFoundError(f"no sound files ({known}) below {path}; there is {found.described()}")
    if pattern is not None:
        return _by_pattern(path, found, pattern)
    if any(filenames.parse("ravdess", file) for file in found.files):
        return _named("ravdess", path, others=True)
    files, left_out = _without_copies(found.files)
    root = Path(os.path.abspath(os.path.expanduser(path)))
    labels = _class_names({file.parent for file in files} - {root})
    clips = pd.DataFrame({"path": [str(file) for file in files], "label": [labels.get(file.parent) for file in files]})
    _warn_of_contradictions(clips)
    return _finish(clips, left_out + found.left_out)


def _warn_of_contradictions(clips):
    """Warn where one and the same sound has two labels."""
    sizes = clips["path"].map(os.path.getsize)
    alike = clips[sizes.duplicated(keep=False) & (sizes > 0)]
    if alike.empty:
        return
    labels = alike.groupby(alike["path"].map(content_hash))["label"].agg(lambda values: sorted(set(values.dropna())))
    both = labels[labels.map(len) > 1]
    if len(both):
        warnings.warn(
            f"one and the same sound has several labels, such as {' and '.join(both.iloc[0])} (so do {len(both)} sounds): "
            "all copies are kept",
            stacklevel=4,
        )


def _class_names(parents) -> dict:
    """The label that each folder stands for; None of all where they are one, or named like speakers or parts.

    A leading number is taken off ("001 - Dog bark") where a word follows and the names stay different ("20 dB" is kept).
    """
    if len(parents) < 2 or any(_NOT_A_CLASS.match(folder.name) for folder in parents):
        return dict.fromkeys(parents)
    spelled = {folder.name for folder in parents}
    stripped = {name: re.sub(r"^\d+[\s_.-]+(?=[^\W\d])", "", name) for name in spelled}
    are_different = len({name.lower() for name in stripped.values()}) == len(spelled)
    return {folder: _class(stripped[folder.name] if are_different else folder.name) for folder in parents}


def _by_pattern(root, found, pattern):
    """The files whose path below `root` a regular expression matches; its named groups are columns."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
    if not compiled.groupindex:
        raise ValueError(f'pattern {pattern!r} has no named group, such as r"(?P<speaker>[^/]+)/(?P<label>[^/]+)/"')
    if {"path", "audio"} & set(compiled.groupindex):
        raise ValueError(f"pattern {pattern!r}: a group cannot be called path or audio, which are the file itself")
    root = Path(os.path.abspath(os.path.expanduser(root)))
    rows, left_out, seen = [], Counter(), set()
    for file in found.files:
        match = compiled.search(file.relative_to(root).as_posix())
        if match is None:
            left_out["not matched by the pattern"] += 1
            continue
        groups = tuple(match.groupdict().values())
        recordings = {(os.path.realpath(file), *groups), (file.name, content_hash(file), *groups)}
        if recordings & seen:
            left_out["the same recording again"] += 1
            continue
        seen |= recordings
        rows.append({"path": str(file), **match.groupdict()})
    if not rows:
        example = found.files[0].relative_to(root).as_posix()
        raise ValueError(f"pattern {pattern!r} matches not one of {len(found.files)} files, such as {example!r}")
    clips = pd.DataFrame(rows)
    return _finish(clips if "label" in clips else clips.assign(label=None), left_out + found.left_out)


def _without_copies(files):
    """The files, each once; and how many were left out.

    One file under two names is taken once for each folder's name, which may be its label; so are files of one name and
    equal bytes, in folders of one name.
    """
    real = [os.path.realpath(file) for file in files]
    alike = [(file.name, file.parent.name, os.path.getsize(file)) for file in files]
    counts = Counter(alike)
    seen, kept, left_out = set(), [], Counter()
    for file, target, key in zip(files, real, alike):
        keys = {(target, file.parent.name)}
        _, _, size = key
        if size and counts[key] > 1:
            keys.add((*key, content_hash(file)))
        if keys & seen:
            left_out["the same recording again"] += 1
        else:
            kept.append(file)
        seen |= keys
    return kept, left_out


def from_csv(path, *, path_column="path", label_column="label", speaker_column="speaker", root=None) -> pd.DataFrame:
    """A table of clips: CSV (or tab-separated, .tsv) with one row per clip; all its columns are kept.

    Each speaker is spelled in one way: "mine-17 " and "Mine-17" become "mine-17" where that comes first
    (`identity.unified`).

    Parameters
    ----------
    path_column, label_column, speaker_column : str
        Which columns hold the file (relative to `root`, else to the CSV file's folder), the label and the speaker. They
        become `path`, `label` and `speaker`. A column "emotion" or "class" is taken where there is no "label", and "speaker_id",
        "client_id" or "actor" where there is no "speaker", whatever their case; else labels are missing.

    Raises
    ------
    FileNotFoundError, ValueError
        The table, or some of the files it names, are not there; it has no such column, or no rows.
    """
    path = Path(path).expanduser()
    clips = tables.read(path, names=(path_column, label_column, speaker_column, "audio"))
    if "audio" in clips:  # files too, under the other name; `path` comes first
        clips = clips.drop(columns="audio") if path_column in clips else clips.rename(columns={"audio": path_column})
    asked = {path_column: "path", label_column: "label", speaker_column: "speaker"}
    for column, usual in asked.items():
        if column not in clips and (column != usual or usual == "path"):
            has = ", ".join(map(repr, clips))
            raise ValueError(
                f"{path} has no column {column!r}; it has {has}: open it with corpora.from_csv(…, {usual}_column=…)"
            )
    clips = with_usual_names(clips.rename(columns=asked))
    if clips.empty or clips["path"].isna().any():
        raise ValueError(f"{path} names no file in {clips['path'].isna().sum()} of its {len(clips)} rows")
    clips["path"] = [os.path.abspath(Path(root or path.parent, name)) for name in clips["path"]]
    _check_files(clips["path"], path)
    again = clips.duplicated()
    left_out = {"the same row again": int(again.sum())} if again.any() else {}
    clips = clips[~again].reset_index(drop=True)
    return _finish(clips if "label" in clips else clips.assign(label=None), left_out)


def _class(name):
    """A folder's name as a label; emotions in our spelling."""
    return name.lower() if name.lower() in EMOTIONS else name


def _check_files(paths, table):
    """Raise if some of the files are missing."""
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        few = ", ".join(missing[:3])
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} files of {table} are missing, e.g. {few}")


def _finish(clips, left_out):
    """Put the usual columns first and note what was left out."""
    first = ["path", "label", "speaker", "sex", "intensity", "statement", "repetition", "actor"]
    clips = clips[[name for name in first if name in clips] + [name for name in clips if name not in first]]
    if "speaker" in clips:
        clips = clips.assign(speaker=identity.unified(clips["speaker"]))
    clips.attrs["left_out"] = dict(left_out)
    if left_out:
        counts = ", ".join(f"{n} ({why})" for why, n in left_out.items())
        warnings.warn(f"left out: {counts}", stacklevel=4)
    return clips


def relabel(clips, table, *, known=None) -> pd.DataFrame:
    """Put labels into a model's words; returns a copy. Labels for which there is no other word stay as they are.

    Parameters
    ----------
    table : dict or path
        Word for word, or a CSV file whose first two columns are the old and the new word.
    known : sequence of str, optional
        The model's labels.

    Raises
    ------
    KeyError
        Not one clip has a label that the table knows, or, with `known`, some label is then not among those.
    """
    if not isinstance(table, dict):
        columns = list(tables.read(table))
        if len(columns) < 2:
            raise ValueError(f"{table} has one column, and two are needed: the old word and the new")
        frame = tables.read(table, names=columns)
        twice = frame.iloc[:, 0][frame.iloc[:, 0].duplicated()]
        if len(twice):
            raise ValueError(f"{table} has the old word {twice.iloc[0]!r} twice: keep one of the rows")
        table = dict(zip(frame.iloc[:, 0], frame.iloc[:, 1]))
    labels = clips["label"]
    present = list(labels.dropna().unique())
    if not set(present) & set(table):
        raise KeyError(f"not one clip has a label of the table, {list(table)}; the clips have {present}")
    spelled = {str(label).casefold(): label for label in present}
    for word in set(table) - set(present):
        other = spelled.get(str(word).casefold())
        if other is not None and other not in table:
            warnings.warn(f"the table has {word!r}, and the clips have {other!r}, which stays as it is", stacklevel=2)
    new = labels.map(lambda label: table.get(label, label))
    strange = filenames.ordered(set(new.dropna()) - set(known)) if known is not None else []
    if strange:
        raise KeyError(
            f"the labels {strange} are not among the model's, which are {list(known)}: add them to the table"
        )
    return clips.assign(label=new)


def summary(clips) -> pd.DataFrame:
    """Counts of clips, where known of speakers, and of clips by sex and intensity; a row per label, and "all"."""
    keys = clips["label"].astype(object).where(clips["label"].notna(), "(no label)")
    parts = {"clips": keys.groupby(keys).size()}
    if "speaker" in clips:
        parts["speakers"] = clips["speaker"].groupby(keys).nunique()
    for column in ("sex", "intensity"):
        if column in clips:
            values = sorted(clips[column].dropna().unique())
            parts |= {value: keys[clips[column] == value].value_counts() for value in values}
    counts = pd.DataFrame(parts).fillna(0).astype(int)
    counts = counts.loc[filenames.ordered(counts.index)]
    total = counts.sum()
    if "speakers" in total:
        total["speakers"] = clips["speaker"].nunique()
    return pd.concat([counts, total.rename("all").to_frame().T]).rename_axis("label")
