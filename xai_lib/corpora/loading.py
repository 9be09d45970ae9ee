"""Loading of corpora as pandas DataFrames of clips: `path`, `label`, where known `speaker`, `sex`, `intensity` ...

Selection is plain pandas: ``clips.query("label == 'angry' and sex == 'female'")``. Files that were left out are counted
by reason in ``clips.attrs["left_out"]``.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..audio.reading import SUFFIXES, Waveform, content_hash, rate_of, read, sources
from ..checks import require_whole_number
from . import downloads, filenames, folders, identity, tables
from .clips import collect, with_usual_names
from .filenames import EMOTIONS

TABLES = (".csv", ".tsv")
RAVDESS_URL = "https://zenodo.org/records/1188976/files/"
RAVDESS_ZIP = "Audio_Speech_Actors_01-24.zip"
RAVDESS_MD5 = "md5:bc696df654c87fed845eb13823edef8a"

_NOT_A_CLASS = re.compile(
    r"((actor|speaker|spk|subject|fold|part|disc)?[\s_-]*\d+|audio.*|wavs?|clips|train|test)$", re.IGNORECASE
)


def as_clips(clips: Any, sample_rate: int | None = None, *, first: int | None = None) -> pd.DataFrame:
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

    Examples
    --------
    >>> import numpy as np
    >>> from xai_lib import corpora
    >>> noise = 0.1 * np.random.default_rng(0).standard_normal((2, 16000))
    >>> corpora.as_clips(noise, sample_rate=16000).columns.tolist()
    ['audio']
    """
    if first is not None:
        require_whole_number("first", first)
    if _is_folder_or_table(clips):
        table = _from_folder_or_table(clips)
    elif _is_list_with_folder_or_table(clips):
        table = _from_list_of_paths(clips)
    else:
        table = collect(clips, sample_rate, first)
    if table.empty:
        raise ValueError("there are no clips: the input is empty")
    in_parts = isinstance(clips, dict)  # of a DatasetDict, `first` clips of each part were taken before
    return table if first is None or in_parts else table.head(first)


def _is_folder_or_table(path) -> bool:
    """Return whether this is the path of a folder, or of a table in a file."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    return os.path.isdir(os.path.expanduser(path)) or str(path).lower().endswith(TABLES)


def _is_list_with_folder_or_table(paths) -> bool:
    """Return whether this is a list of paths, some of which are folders or tables in files."""
    if not isinstance(paths, (list, tuple)) or not all(isinstance(path, (str, os.PathLike)) for path in paths):
        return False
    return any(map(_is_folder_or_table, paths))


def _from_folder_or_table(path) -> pd.DataFrame:
    """Return the clips of a folder or of a table in a file."""
    path = os.path.expanduser(path)
    return from_folder(path) if os.path.isdir(path) else from_csv(path)


def _from_list_of_paths(paths) -> pd.DataFrame:
    """Return the clips of folders, tables in files and sound files, each file once."""
    parts = [as_clips(path) for path in paths]
    left_out = Counter()
    for part in parts:
        left_out.update(part.attrs.get("left_out", {}))

    clips = pd.concat(parts, ignore_index=True)
    is_duplicate = clips["path"].map(os.path.realpath).duplicated()
    left_out["the same file again"] += int(is_duplicate.sum())
    clips = clips[~is_duplicate].reset_index(drop=True)
    if "speaker" in clips:
        clips = clips.assign(speaker=identity.unify_spelling(clips["speaker"]))
    clips.attrs["left_out"] = dict(+left_out)
    return clips


def excerpt(recording: Any, start: float, end: float, sample_rate: int | None = None) -> pd.DataFrame:
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
    name: str | Path = "sample",
    root: str | Path | None = None,
    *,
    subset: str = "main",
    download: bool = False,
    url: str = RAVDESS_URL,
    known_hash: str = RAVDESS_MD5,
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

    Examples
    --------
    >>> from xai_lib import corpora
    >>> clips = corpora.load("sample")
    >>> clips["label"].value_counts().head(2)
    label
    calm     96
    happy    96
    Name: count, dtype: int64
    >>> sorted(clips["speaker"].unique())[:3]
    ['sample-01', 'sample-02', 'sample-03']
    """
    key = str(name).lower()
    path = Path(name).expanduser()
    root = None if root is None else Path(root).expanduser()
    if key == "sample":
        bundled = os.environ.get("XAI_DATA") or Path(__file__).resolve().parents[2] / "data"
        if root is not None and not (root / "factors.csv").is_file():
            raise FileNotFoundError(f"no sample corpus in {root}: leave out root= for the bundled one")
        return _sample(root or Path(bundled, "sample"), subset)
    if key == "ravdess":
        return _load_by_file_names(key, root or _ravdess_root(download, url, known_hash))
    if key in filenames.KNOWN:
        if root is None:
            raise FileNotFoundError(f'{key} has no default folder: download it and pass root="its folder"')
        return _load_by_file_names(key, root)
    if path.is_dir():
        return from_folder(path)
    if path.is_file():
        return from_csv(path, root=root)
    known = f"sample, {', '.join(filenames.KNOWN)}, or the path of a folder or CSV file that exists"
    raise ValueError(f"unknown corpus {str(path)!r}: known are {known}")


def _sample(folder, subset) -> pd.DataFrame:
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


def _ravdess_root(download, url, known_hash) -> Path:
    """Return the folder of RAVDESS, downloaded if `download` and it is missing."""
    cache = downloads.cache() / "ravdess"
    candidates = [cache]
    data_folder = os.environ.get("XAI_REAL_DATA")
    if data_folder:
        candidates.insert(0, Path(data_folder, "ravdess"))

    for folder in candidates:
        if folder.is_dir():
            return folder
    if download:
        return downloads.fetch(url.rstrip("/") + "/" + RAVDESS_ZIP, known_hash, cache)
    raise FileNotFoundError(
        f"RAVDESS was not found in {' or '.join(map(str, candidates))}. Load it with download=True (208 MB "
        f"from Zenodo), or fetch {RAVDESS_ZIP} from https://zenodo.org/records/1188976, unpack it, and pass "
        'root="its folder"'
    )


def _load_by_file_names(corpus, root, others=False) -> pd.DataFrame:
    """Return a corpus whose clips are described by their file names, anywhere below `root`."""
    contents = folders.walk(root, (*SUFFIXES, *filenames.VIDEO))
    clips, left_out = filenames.table(corpus, contents.files, others=others)
    left_out += contents.left_out
    if clips.empty:
        example = " speech (names like 03-01-05-01-02-01-12.wav)" if corpus == "ravdess" else ""
        reason = f"there are no sound files; other files: {contents.described()}"
        if left_out:
            reason = f"left out: {dict(left_out)}"
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


def from_folder(path: str | Path, pattern: str | None = None) -> pd.DataFrame:
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
    rows = [{"path": str(file), "label": labels.get(file.parent)} for file in files]
    clips = pd.DataFrame(rows)
    _warn_on_conflicting_labels(clips)
    return _finish(clips, left_out + contents.left_out)


def _warn_on_conflicting_labels(clips):
    """Warn where identical sounds have different labels."""
    sizes = clips["path"].map(os.path.getsize)
    same_size = clips[sizes.duplicated(keep=False) & (sizes > 0)]
    if same_size.empty:
        return
    conflicts = []  # labels of each sound that has several
    for _, copies in same_size.groupby(same_size["path"].map(content_hash)):
        labels = sorted(set(copies["label"].dropna()))
        if len(labels) > 1:
            conflicts.append(labels)
    if conflicts:
        warnings.warn(
            f"identical sounds have different labels, e.g. {' and '.join(conflicts[0])} (number of such sounds: "
            f"{len(conflicts)}): all copies are kept",
            stacklevel=4,
        )


def _labels_of_folders(parents) -> dict:
    """Return the label of each folder; None for all where there is one, or one is named like a speaker or a part.

    A leading number is removed ("001 - Dog bark") where a word follows and the names stay different ("20 dB" is kept).
    Emotions are spelled as in `EMOTIONS`.
    """
    if len(parents) < 2 or any(_NOT_A_CLASS.match(folder.name) for folder in parents):
        return dict.fromkeys(parents)
    names = {folder.name for folder in parents}
    stripped = {name: re.sub(r"^\d+[\s_.-]+(?=[^\W\d])", "", name) for name in names}
    stay_different = len({name.lower() for name in stripped.values()}) == len(names)

    labels = {}
    for folder in parents:
        label = stripped[folder.name] if stay_different else folder.name
        is_emotion = label.lower() in EMOTIONS
        labels[folder] = label.lower() if is_emotion else label
    return labels


def _load_by_pattern(root, contents, pattern) -> pd.DataFrame:
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
    rows = []
    left_out = Counter()
    known_recordings = set()
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
    return _finish(_with_label(pd.DataFrame(rows)), left_out + contents.left_out)


def _with_label(clips) -> pd.DataFrame:
    """Return the clips with a column `label`, whose values are missing where there was none."""
    return clips if "label" in clips else clips.assign(label=None)


def _without_copies(files) -> tuple[list[Path], Counter]:
    """Return the files, each once, and the number of those left out.

    A file with several names is kept once for each folder name, which may be its label; so are files of one name and
    equal bytes, in folders of one name.
    """
    signatures = {file: (file.name, file.parent.name, os.path.getsize(file)) for file in files}
    counts = Counter(signatures.values())
    known_identities = set()
    unique_files = []
    left_out = Counter()
    for file, signature in signatures.items():
        identities = {(os.path.realpath(file), file.parent.name)}
        if counts[signature] > 1 and os.path.getsize(file) > 0:
            identities.add((*signature, content_hash(file)))
        if identities & known_identities:
            left_out["the same recording again"] += 1
        else:
            unique_files.append(file)
        known_identities |= identities
    return unique_files, left_out


def from_csv(
    path: str | Path,
    *,
    path_column: str = "path",
    label_column: str = "label",
    speaker_column: str = "speaker",
    root: str | Path | None = None,
) -> pd.DataFrame:
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
    if "audio" in clips and path_column in clips:
        clips = clips.drop(columns="audio")
    elif "audio" in clips:  # paths of files under another name
        clips = clips.rename(columns={"audio": path_column})
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
    return _finish(_with_label(clips), left_out)


def _check_files(paths, table):
    """Raise FileNotFoundError where some of the files are missing."""
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        examples = ", ".join(missing[:3])
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} files of {table} are missing, e.g. {examples}")


def _finish(clips, left_out) -> pd.DataFrame:
    """Put the standard columns first, unify speakers, and record what was left out, with a warning."""
    standard_columns = ["path", "label", "speaker", "sex", "intensity", "statement", "repetition", "actor"]
    leading = [name for name in standard_columns if name in clips]
    clips = clips[leading + [name for name in clips if name not in leading]]
    if "speaker" in clips:
        clips = clips.assign(speaker=identity.unify_spelling(clips["speaker"]))
    clips.attrs["left_out"] = dict(left_out)
    if left_out:
        counts = ", ".join(f"{count} ({reason})" for reason, count in left_out.items())
        warnings.warn(f"left out: {counts}", stacklevel=4)
    return clips


def relabel(clips: pd.DataFrame, table: dict | str | Path, *, known: Sequence[str] | None = None) -> pd.DataFrame:
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
    new_label_of = table if isinstance(table, dict) else _read_labels(table)
    labels = clips["label"]
    present = list(labels.dropna().unique())
    if not set(present) & set(new_label_of):
        raise KeyError(f"no clip has a label of the table, {list(new_label_of)}; the clips have {present}")
    _warn_of_spellings(new_label_of, present)

    new_labels = labels.map(lambda label: new_label_of.get(label, label))
    unknown = filenames.ordered(set(new_labels.dropna()) - set(known)) if known is not None else []
    if unknown:
        raise KeyError(
            f"the labels {unknown} are not among the model's, which are {list(known)}: add them to the table"
        )
    return clips.assign(label=new_labels)


def _read_labels(path) -> dict:
    """Read the new label by old label from the first two columns of a CSV file."""
    columns = list(tables.read(path))
    if len(columns) < 2:
        raise ValueError(f"{path} has one column, but two are required: the old and the new label")
    table = tables.read(path, names=columns)  # as text
    old_labels = table[columns[0]]
    duplicates = old_labels[old_labels.duplicated()]
    if len(duplicates):
        raise ValueError(f"{path} has the old label {duplicates.iloc[0]!r} twice: keep one of the rows")
    return dict(zip(old_labels, table[columns[1]]))


def _warn_of_spellings(new_label_of, present):
    """Warn where a label of the clips differs from one of the table in case alone, and so is not replaced."""
    spellings = {str(label).casefold(): label for label in present}
    for old_label in set(new_label_of) - set(present):
        clip_label = spellings.get(str(old_label).casefold())
        if clip_label is not None and clip_label not in new_label_of:
            warnings.warn(
                f"the table has {old_label!r}, but the clips have {clip_label!r}, which is not replaced", stacklevel=3
            )


def summary(clips: pd.DataFrame) -> pd.DataFrame:
    """Count clips, where known speakers, and clips by sex and intensity: a row per label, and "all"."""
    keys = clips["label"].astype(object).where(clips["label"].notna(), "(no label)")
    columns = {"clips": keys.groupby(keys).size()}
    if "speaker" in clips:
        columns["speakers"] = clips["speaker"].groupby(keys).nunique()
    for column in ("sex", "intensity"):
        if column in clips:
            for value in sorted(clips[column].dropna().unique()):
                columns[value] = keys[clips[column] == value].value_counts()
    counts = pd.DataFrame(columns).fillna(0).astype(int)
    counts = counts.loc[filenames.ordered(counts.index)]
    total = counts.sum()
    if "speakers" in total:
        total["speakers"] = clips["speaker"].nunique()
    return pd.concat([counts, total.rename("all").to_frame().T]).rename_axis("label")
