"""The one place that walks folders: which sound files lie below one, and what was left out there.

Names are those of the links, where a corpus is made of links (a hub's cache, git-annex, DataLad, DVC), and a linked
folder is entered once. Hidden files and folders, and what systems keep for themselves, are left out.
"""

import glob
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = {"__macosx", "$recycle.bin", "lost+found", "system volume information", "@eadir", "__pycache__", "trash"}
OTHER_SOUND = (
    ".m4a",
    ".m4b",
    ".mp2",
    ".wv",
    ".ape",
    ".dsf",
    ".mp4",
    ".aac",
    ".wma",
    ".amr",
    ".webm",
    ".3gp",
    ".mkv",
    ".mov",
    ".avi",
    ".m4v",
    ".sph",
    ".raw",
)


@dataclass
class Found:
    """What lies below a folder."""

    files: list[Path] = field(default_factory=list)  # with the endings asked for, sorted
    left_out: Counter = field(default_factory=Counter)  # files, by reason
    others: Counter = field(default_factory=Counter)  # endings of all other files

    def described(self) -> str:
        """What else is there, in words: "3 .m4a, 1 .txt"."""
        few = [f"{count} {ending or 'without ending'}" for ending, count in self.others.most_common(5)]
        return ", ".join(few) or "nothing"


def walk(root, endings) -> Found:
    """Find the files with these endings below a folder.

    Parameters
    ----------
    endings : sequence of str
        Such as ".wav"; capitals do not matter.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    """
    root = Path(os.path.abspath(os.path.expanduser(root)))
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    found = Found()
    entered = {os.path.realpath(root)}
    waiting = [root]
    while waiting:
        links = []
        for start in waiting:  # folders themselves, at any depth, before links to them: files keep their own names
            _walk_one(start, root, endings, entered, found, links)
        waiting = [link for link in sorted(links) if _is_entered(link, root, entered, found)]
    found.files.sort()
    return found


def _walk_one(start, root, endings, entered, found, links):
    """Note the files below one folder; links to folders are put off."""
    for folder, inside, names in os.walk(start):
        inside.sort()
        links += [Path(folder, name) for name in inside if os.path.islink(os.path.join(folder, name))]
        inside[:] = [
            name
            for name in inside
            if not os.path.islink(os.path.join(folder, name)) and _is_entered(Path(folder, name), root, entered, found)
        ]
        for name in names:
            _note(Path(folder, name), endings, found)


def named(pattern, endings) -> list[str]:
    """The files that a path or a pattern such as "mine/*.wav" names, or those with these endings in a folder, sorted."""
    pattern = os.path.expanduser(pattern)
    if os.path.isdir(pattern):
        return [str(path) for path in walk(pattern, endings).files]
    if os.path.isfile(pattern):
        return [os.path.abspath(pattern)]
    return sorted(map(os.path.abspath, filter(os.path.isfile, glob.glob(pattern, recursive=True))))


def _is_entered(folder, root, entered, found) -> bool:
    """Whether a folder is searched: not a hidden one, and none that was searched under another name."""
    if _is_hidden(folder.name):
        found.left_out["hidden folders"] += 1
        return False
    real = os.path.realpath(folder)
    if Path(os.path.realpath(root)).is_relative_to(real) and real not in entered:
        found.left_out["links to folders above"] += 1
        return False
    if real in entered:
        found.left_out["folders linked again"] += 1
        return False
    entered.add(real)
    return True


def _note(file, endings, found):
    """Count one file, or take it."""
    ending = file.suffix.lower()
    if _is_hidden(file.name):
        if ending in endings:
            found.left_out["hidden files"] += 1
    elif ending not in endings:
        found.others[ending] += 1
        if ending in OTHER_SOUND:
            found.left_out[f"{ending}, which cannot be read: convert to wav or flac"] += 1
    elif not os.path.exists(file):
        found.left_out["links to what is not there"] += 1
    else:
        found.files.append(file)


def _is_hidden(name) -> bool:
    """Whether this is a name of what is hidden, or was thrown away, or of what systems keep for themselves."""
    return name.startswith((".", "~$")) or name.lower() in SYSTEM
