"""Loading of corpora as pandas DataFrames of clips: `path`, `label`, where known `speaker`, `sex`, `intensity` ...

Selection is plain pandas: ``clips.query("label == 'angry' and sex == 'female'")``. Files that were left out are counted
by reason in ``clips.attrs["left_out"]``.
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
    """Make a table of clips from any kind of audio: files, folders, tables, waveforms or data sets.

    Parameters
    ----------
    clips
        One of

        * a table with the column `path` or `audio`, which is returned unchanged except that `audio` is converted: its
          cells are waveforms, {"array": …, "sampling_rate": …} or {"bytes": …, "path": …} (the two forms of Hugging
          Face);
        * the path of a sound file, a folder (`from_folder`), a table (.csv, .tsv: `from_csv`), or a
          pattern such as "mine/*.wav"; a list of these;
        * a waveform, as numbers of numpy or torch or a list: [time], or [clip, time]; a list of waveforms of unequal
          length. Integers are scaled by the range of their type, floats have full scale 1;
        * a `datasets.Dataset`, also streamed, or a `DatasetDict`, whose parts become the column `split`.
    sample_rate : int, optional
        Sample rate of waveforms in Hz: required for them, since a wrong rate would go unnoticed. Files name their own.
    first : int, optional
        Number of clips to take, of a `DatasetDict` from each part; default: all. Required for a streamed data set.

    Returns
    -------
    DataFrame
        A row per clip: `path`, or `audio` (`reading.Waveform`, `reading.Encoded`), and where known `label`, `speaker`
        and the other columns of the source. Whether a file can be read is not checked before it is read.

    Raises
    ------
    ValueError
        Waveforms without `sample_rate`, or of a shape or type that no waveform has; an object that is not audio.
    FileNotFoundError
        A folder, table or pattern without clips.
    """
    if first is not None and (isinstance(first, bool) or not isinstance(first, int) or first < 1):
        raise ValueError(f"first must be a whole number from 1 up, not {first!r}")
    if _include_folder_or_table(clips):
        table = _from_folders_and_tables(clips)
    else:
        table = collect(clips, sample_rate, first)
    if table.empty:
        raise ValueError("there are no clips: the input is empty")
    in_parts = isinstance(clips, dict)  # of a DatasetDict, `first` clips of each part were taken before
    return table if first is None or in_parts else table.head(first)


def _include_folder_or_table(clips) -> bool:
    """Return whether this is a folder or a table in a file, or a list of paths some of which are."""
    if isinstance(clips, (str, os.PathLike)):
        return os.path.isdir(os.path.expanduser(clips)) or str(clips).lower().endswith(TABLES)
    if not isinstance(clips, (list, tuple)) or not all(isinstance(path, (str, os.PathLike)) for path in clips):
        return False
    return any(map(_include_folder_or_table, clips))


def _from_folders_and_tables(paths) -> pd.DataFrame:
    """Return the clips of a folder or a table in a file, or of a list of these and of sound files."""
    if isinstance(paths, (list, tuple)):
        tables_of_clips = [as_clips(path) for path in paths]
        left_out = sum((Counter(table.attrs.get("left_out", {})) for table in tables_of_clips), Counter())
        clips = pd.concat(tables_of_clips, ignore_index=True)
        is_duplicate = pd.Series(map(os.path.realpath, clips["path"]), clips.index).duplicated()
        left_out["the same file again"] += int(is_duplicate.sum())
        clips = clips[~is_duplicate].reset_index(drop=True)
        if "speaker" in clips:
            clips = clips.assign(speaker=identity.unify_spelling(clips["speaker"]))
        clips.attrs["left_out"] = dict(+left_out)
        return clips
    path = os.path.expanduser(paths)
    return from_folder(path) if os.path.isdir(path) else from_csv(path)


def excerpt(recording, start, end, sample_rate=None) -> pd.DataFrame:
    """Cut an excerpt out of a recording, as a table of one clip, e.g. for attribution of a moment in a long recording.

    Parameters
    ----------
    recording
        One clip, as in `as_clips`.
    start, end : float
        Seconds.

    Raises
    ------
    ValueError
        More or less than one recording, or the excerpt does not lie within it.
    """
    table = as_clips(recording, sample_rate)
    if len(table) != 1:
        raise ValueError(f"an excerpt is cut out of one recording, not of {len(table)} clips: pass one of them")
    source = sources(table).iloc[0]
    rate = rate_of(source)
    samples = read(source, rate)
    duration = len(samples) / rate
    if not 0 <= start < end <= duration + 1e-6:
        raise ValueError(
            f"an excerpt from {start:g} to {end:g} s does not lie within {source}, which lasts {duration:.2f} s"
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
        Folder of the corpus. For "ravdess" the default is ``$XAI_REAL_DATA/ravdess``, then the cache folder; for
        "sample" the project's ``data/sample`` (``$XAI_DATA`` names another ``data``); required for the others.
    subset : {"main", "one_factor", "all"}
        Part of "sample": the emotional clips, those in which one acoustic factor at a time was varied, or all.
    download : bool
        Fetch RAVDESS speech (208 MB, CC BY-NC-SA 4.0) into the cache folder if it is not there yet: from Zenodo, or
        another `url` with its `known_hash`.

    Raises
    ------
    FileNotFoundError
        The corpus is missing, or holds no clips; the message says how to get it.
    ValueError
        Unknown name or `subset`, or an archive that `downloads.fetch` refuses.
    """
    key, name = str(name).lower(), Path(name).expanduser()
    root = None if root is None else Path(root).expanduser()
    if key == "sample":
        bundled = os.environ.get("XAI_DATA") or Path(__file__).resolve().parents[2] / "data"
        return _sample(root or Path(bundled, "sample"), subset)
    if key == "ravdess":
        return _load_by_file_names(key, root or _ravdess_root(download, url, known_hash))
    if key in filenames.KNOWN:
        if root is None:
            raise FileNotFoundError(f'{key} has no default folder: download it and pass root="its folder"')
        return _load_by_file_names(key, root)
    if name.is_dir():
        return from_folder(name)
    if name.is_file():
        return from_csv(name, root=root)
    known = f"sample, {', '.join(filenames.KNOWN)}, or the path of a folder or CSV file that exists"
    raise ValueError(f"unknown corpus {str(name)!r}: known are {known}")


def _sample(folder, subset):
    """Return the bundled corpus, with the factors that its clips were made from."""
    if not (folder / "factors.csv").is_file():
        remedy = (
            "make it with `python data/recipes/make_sample.py`, or set the environment variable XAI_DATA to the data "
            "folder"
        )
        raise FileNotFoundError(f"no sample corpus in {folder}: {remedy}")
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
    """Return the folder of RAVDESS, downloaded if `download` and it is missing."""
    cache, data_folder = downloads.cache() / "ravdess", os.environ.get("XAI_REAL_DATA")
    candidates = [Path(data_folder, "ravdess"), cache] if data_folder else [cache]
    existing = [folder for folder in candidates if folder.is_dir()]
    if existing or download:
        return existing[0] if existing else downloads.fetch(url.rstrip("/") + "/" + RAVDESS_ZIP, known_hash, cache)
    raise FileNotFoundError(
        f"RAVDESS was not found in {' or '.join(map(str, candidates))}. Load it with download=True (208 MB "
        f"from Zenodo), or fetch {RAVDESS_ZIP} from https://zenodo.org/records/1188976, unpack it, and pass "
        'root="its folder"'
    )


def _load_by_file_names(corpus, root, others=False):
    """Return a corpus whose clips are described by their file names, anywhere below `root`."""
    contents = folders.walk(root, (*SUFFIXES, *filenames.VIDEO))
    clips, left_out = filenames.table(corpus, contents.files, others=others)
    left_out += contents.left_out
    if clips.empty:
        example = " speech (names like 03-01-05-01-02-01-12.wav)" if corpus == "ravdess" else ""
        reason = (
            f"left out: {dict(left_out)}"
            if left_out
            else f"there are no sound files; other files: {contents.described()}"
        )
        raise FileNotFoundError(f"no clips of {corpus}{example} below {root}; {reason}")
    if corpus.startswith("esc"):
        clips["label"] = _esc_labels(root, clips["path"])
    if corpus == "esc-10":
        clips["label"] = clips["label"].str.lower()
    return _finish(clips, left_out)


def _esc_labels(root, paths) -> list:
    """Return the class of each clip, from the corpus's table where it lies below the root, else from folder names."""
    label_tables = [path for path in folders.walk(root, (".csv",)).files if path.name == "esc50.csv"]
    if label_tables:
        table = tables.read(label_tables[0], names=("filename", "category")).drop_duplicates("filename")
        categories = table.set_index("filename")["category"]
        return [categories.get(Path(path).name) for path in paths]
    labels = _labels_of_folders({Path(path).parent for path in paths})
    return [labels[Path(path).parent] for path in paths]


def from_folder(path, pattern=None) -> pd.DataFrame:
    r"""Load all sound files below a folder.

    RAVDESS names are parsed (see `load`), and other files beside them have no label. Without such names, the label is
    the name of the folder that a file lies in, without a leading number ("001 - Dog bark" is "Dog bark"), when there
    are two such folders or more and none of them is named like a speaker or a part ("Actor_01", "1688", "wav",
    "train"). Otherwise, and for files that lie in no such folder, it is missing.

    Parameters
    ----------
    pattern : str, optional
        A regular expression over each file's path below the folder, written with "/" and found anywhere in it, whose
        named groups become columns: ``r"(?P<speaker>\w+)/(?P<label>\w+)_"``. Names are then not parsed otherwise; files
        that it does not match are left out and counted.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or no sound file below it; the message counts the files that are there.
    ValueError
        The pattern is not a regular expression, has no named group, or matches no file.
    """
    contents = folders.walk(path, SUFFIXES)
    if not contents.files:
        known = ", ".join(SUFFIXES)
        raise FileNotFoundError(f"no sound files ({known}) below {path}; other files: {contents.described()}")
    if pattern is not None:
        return _load_by_pattern(path, contents, pattern)
    if any(filenames.parse("ravdess", file) for file in contents.files):
        return _load_by_file_names("ravdess", path, others=True)
    files, left_out = _without_copies(contents.files)
    root = Path(os.path.abspath(os.path.expanduser(path)))
    labels = _labels_of_folders({file.parent for file in files} - {root})
    clips = pd.DataFrame({"path": [str(file) for file in files], "label": [labels.get(file.parent) for file in files]})
    _warn_on_conflicting_labels(clips)
    return _finish(clips, left_out + contents.left_out)


def _warn_on_conflicting_labels(clips):
    """Warn where identical sounds have different labels."""
    sizes = clips["path"].map(os.path.getsize)
    same_size = clips[sizes.duplicated(keep=False) & (sizes > 0)]
    if same_size.empty:
        return
    labels = same_size.groupby(same_size["path"].map(content_hash))["label"].agg(
        lambda values: sorted(set(values.dropna()))
    )
    conflicts = labels[labels.map(len) > 1]
    if len(conflicts):
        warnings.warn(
            f"identical sounds have different labels, e.g. {' and '.join(conflicts.iloc[0])} (number of such sounds: "
            f"{len(conflicts)}): all copies are kept",
            stacklevel=4,
        )


def _labels_of_folders(parents) -> dict:
    """Return the label of each folder; None for all where there is one, or one is named like a speaker or a part.

    A leading number is removed ("001 - Dog bark") where a word follows and the names stay different ("20 dB" is kept).
    """
    if len(parents) < 2 or any(_NOT_A_CLASS.match(folder.name) for folder in parents):
        return dict.fromkeys(parents)
    names = {folder.name for folder in parents}
    stripped = {name: re.sub(r"^\d+[\s_.-]+(?=[^\W\d])", "", name) for name in names}
    are_different = len({name.lower() for name in stripped.values()}) == len(names)
    return {folder: _label_of_folder(stripped[folder.name] if are_different else folder.name) for folder in parents}


def _load_by_pattern(root, contents, pattern):
    """Return the clips whose path below `root` matches a regular expression; its named groups become columns."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    if not compiled.groupindex:
        raise ValueError(f'pattern {pattern!r} has no named group, such as r"(?P<speaker>[^/]+)/(?P<label>[^/]+)/"')
    if {"path", "audio"} & set(compiled.groupindex):
        raise ValueError(
            f"pattern {pattern!r}: a group cannot be named path or audio, which are reserved for the file: rename it"
        )
    root = Path(os.path.abspath(os.path.expanduser(root)))
    rows, left_out, known_recordings = [], Counter(), set()
    for file in contents.files:
        match = compiled.search(file.relative_to(root).as_posix())
        if match is None:
            left_out["not matched by the pattern"] += 1
            continue
        groups = tuple(match.groupdict().values())
        recordings = {(os.path.realpath(file), *groups), (file.name, content_hash(file), *groups)}
        if recordings & known_recordings:
            left_out["the same recording again"] += 1
            continue
        known_recordings |= recordings
        rows.append({"path": str(file), **match.groupdict()})
    if not rows:
        example = contents.files[0].relative_to(root).as_posix()
        raise ValueError(f"pattern {pattern!r} matches none of {len(contents.files)} files, e.g. {example!r}")
    clips = pd.DataFrame(rows)
    return _finish(clips if "label" in clips else clips.assign(label=None), left_out + contents.left_out)


def _without_copies(files):
    """Return the files, each once, and the number of those left out.

    A file with several names is kept once for each folder name, which may be its label; so are files of one name and
    equal bytes, in folders of one name.
    """
    real_paths = [os.path.realpath(file) for file in files]
    signatures = [(file.name, file.parent.name, os.path.getsize(file)) for file in files]
    counts = Counter(signatures)
    known_identities, unique_files, left_out = set(), [], Counter()
    for file, real_path, signature in zip(files, real_paths, signatures):
        identities = {(real_path, file.parent.name)}
        _, _, size = signature
        if size and counts[signature] > 1:
            identities.add((*signature, content_hash(file)))
        if identities & known_identities:
            left_out["the same recording again"] += 1
        else:
            unique_files.append(file)
        known_identities |= identities
    return unique_files, left_out


def from_csv(path, *, path_column="path", label_column="label", speaker_column="speaker", root=None) -> pd.DataFrame:
    """Load a table of clips, CSV (or tab-separated, .tsv) with one row per clip; all its columns are kept.

    Each speaker is spelled in one way: "mine-17 " and "Mine-17" become "mine-17" where that comes first
    (`identity.unify_spelling`).

    Parameters
    ----------
    path_column, label_column, speaker_column : str
        Columns that hold the file (relative to `root`, else to the CSV file's folder), the label and the speaker. They
        become `path`, `label` and `speaker`. Where there is no "label", a column "labels", "emotion" or "class" is
        used, and where there is no "speaker", "speaker_id", "client_id" or "actor", whatever their case; else labels
        are missing.

    Raises
    ------
    FileNotFoundError, ValueError
        The table, or some of the files it names, are missing; it has no such column, or no rows.
    """
    path = Path(path).expanduser()
    clips = tables.read(path, names=(path_column, label_column, speaker_column, "audio"))
    if "audio" in clips:  # paths of files under another name; `path` takes precedence
        clips = clips.drop(columns="audio") if path_column in clips else clips.rename(columns={"audio": path_column})
    standard_names = {path_column: "path", label_column: "label", speaker_column: "speaker"}
    for column, standard_name in standard_names.items():
        if column not in clips and (column != standard_name or standard_name == "path"):
            present_columns = ", ".join(map(repr, clips))
            raise ValueError(
                f"{path} has no column {column!r}; it has {present_columns}: open it with corpora.from_csv(…, "
                f"{standard_name}_column=…)"
            )
    clips = with_usual_names(clips.rename(columns=standard_names))
    if clips.empty or clips["path"].isna().any():
        raise ValueError(f"{path} names no file in {clips['path'].isna().sum()} of its {len(clips)} rows")
    clips["path"] = [os.path.abspath(Path(root or path.parent, name)) for name in clips["path"]]
    _check_files(clips["path"], path)
    is_duplicate = clips.duplicated()
    left_out = {"the same row again": int(is_duplicate.sum())} if is_duplicate.any() else {}
    clips = clips[~is_duplicate].reset_index(drop=True)
    return _finish(clips if "label" in clips else clips.assign(label=None), left_out)


def _label_of_folder(name):
    """Return a folder's name as a label, with emotions spelled as in `EMOTIONS`."""
    return name.lower() if name.lower() in EMOTIONS else name


def _check_files(paths, table):
    """Raise FileNotFoundError where some of the files are missing."""
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        examples = ", ".join(missing[:3])
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} files of {table} are missing, e.g. {examples}")


def _finish(clips, left_out):
    """Put the standard columns first, unify speakers, and record what was left out, with a warning."""
    leading_columns = ["path", "label", "speaker", "sex", "intensity", "statement", "repetition", "actor"]
    clips = clips[
        [name for name in leading_columns if name in clips] + [name for name in clips if name not in leading_columns]
    ]
    if "speaker" in clips:
        clips = clips.assign(speaker=identity.unify_spelling(clips["speaker"]))
    clips.attrs["left_out"] = dict(left_out)
    if left_out:
        counts = ", ".join(f"{count} ({reason})" for reason, count in left_out.items())
        warnings.warn(f"left out: {counts}", stacklevel=4)
    return clips


def relabel(clips, table, *, known=None) -> pd.DataFrame:
    """Replace labels by those of a model and return a copy; labels that are not in `table` are kept.

    Parameters
    ----------
    table : dict or path
        New label by old label, or a CSV file whose first two columns are the old and the new label.
    known : sequence of str, optional
        The model's labels.

    Raises
    ------
    KeyError
        No clip has a label that is in the table, or, with `known`, some new label is not among those.
    """
    if not isinstance(table, dict):
        columns = list(tables.read(table))
        if len(columns) < 2:
            raise ValueError(f"{table} has one column, but two are required: the old and the new label")
        pairs = tables.read(table, names=columns)
        duplicates = pairs.iloc[:, 0][pairs.iloc[:, 0].duplicated()]
        if len(duplicates):
            raise ValueError(f"{table} has the old label {duplicates.iloc[0]!r} twice: keep one of the rows")
        table = dict(zip(pairs.iloc[:, 0], pairs.iloc[:, 1]))
    labels = clips["label"]
    present = list(labels.dropna().unique())
    if not set(present) & set(table):
        raise KeyError(f"no clip has a label of the table, {list(table)}; the clips have {present}")
    spellings = {str(label).casefold(): label for label in present}
    for old_label in set(table) - set(present):
        clip_label = spellings.get(str(old_label).casefold())
        if clip_label is not None and clip_label not in table:
            warnings.warn(
                f"the table has {old_label!r}, but the clips have {clip_label!r}, which is not replaced", stacklevel=2
            )
    new_labels = labels.map(lambda label: table.get(label, label))
    unknown = filenames.ordered(set(new_labels.dropna()) - set(known)) if known is not None else []
    if unknown:
        raise KeyError(
            f"the labels {unknown} are not among the model's, which are {list(known)}: add them to the table"
        )
    return clips.assign(label=new_labels)


def summary(clips) -> pd.DataFrame:
    """Count clips, where known speakers, and clips by sex and intensity: a row per label, and "all"."""
    keys = clips["label"].astype(object).where(clips["label"].notna(), "(no label)")
    columns = {"clips": keys.groupby(keys).size()}
    if "speaker" in clips:
        columns["speakers"] = clips["speaker"].groupby(keys).nunique()
    for column in ("sex", "intensity"):
        if column in clips:
            values = sorted(clips[column].dropna().unique())
            columns |= {value: keys[clips[column] == value].value_counts() for value in values}
    counts = pd.DataFrame(columns).fillna(0).astype(int)
    counts = counts.loc[filenames.ordered(counts.index)]
    total = counts.sum()
    if "speakers" in total:
        total["speakers"] = clips["speaker"].nunique()
    return pd.concat([counts, total.rename("all").to_frame().T]).rename_axis("label")
