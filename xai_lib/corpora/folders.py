"""Search of folders for sound files, with counts of the files that were left out; used wherever a folder is read.

Where a corpus is made of links (a hub's cache, git-annex, DataLad, DVC), files have the names of the links, and a
linked folder is entered once. Hidden files and folders, and those of the operating system, are left out.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = {"__macosx", "$recycle.bin", "lost+found", "system volume information", "@eadir", "__pycache__", "trash"}
# fmt: off
OTHER_SOUND = (
    ".m4a", ".m4b", ".mp2", ".wv", ".ape", ".dsf", ".mp4", ".aac", ".wma", ".amr", ".webm", ".3gp", ".mkv", ".mov",
    ".avi", ".m4v", ".sph", ".raw",
)
# fmt: on


@dataclass
class FolderContents:
    """Contents of a folder and its subfolders."""

    files: list[Path] = field(default_factory=list)  # with the requested endings, sorted
    left_out: Counter = field(default_factory=Counter)  # number of files by reason
    others: Counter = field(default_factory=Counter)  # number of all other files by ending

    def described(self) -> str:
        """Return the number of other files by ending as text: "3 .m4a, 1 .txt"."""
        counts = [f"{count} {ending or 'without ending'}" for ending, count in self.others.most_common(5)]
        return ", ".join(counts) or "nothing"


def walk(root: str | Path, endings: Sequence[str]) -> FolderContents:
    """Return the files with these endings below a folder, with counts of all others.

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
    contents = FolderContents()
    entered = {os.path.realpath(root)}
    pending = [root]
    while pending:
        links = []
        for start in pending:  # folders before links to them, at any depth, so that files keep their own names
            _collect_files(start, root, endings, entered, contents, links)
        pending = [link for link in sorted(links) if _is_searched(link, root, entered, contents)]
    contents.files.sort()
    return contents


def _collect_files(start, root, endings, entered, contents, links):
    """Add the files below one folder to `contents`, and its links to folders to `links`, to be followed later."""
    for folder, subfolders, file_names in os.walk(start):
        to_enter = []
        for name in sorted(subfolders):
            path = Path(folder, name)
            if path.is_symlink():
                links.append(path)
            elif _is_searched(path, root, entered, contents):
                to_enter.append(name)
        subfolders[:] = to_enter  # `os.walk` enters those that are left in its list
        for name in file_names:
            _add_file(Path(folder, name), endings, contents)


def named(pattern: str | Path, endings: Sequence[str]) -> list[str]:
    """Return the files that match a path or pattern ("mine/*.wav"), or those in a folder with these endings, sorted."""
    pattern = os.path.expanduser(pattern)
    if os.path.isdir(pattern):
        return [str(path) for path in walk(pattern, endings).files]
    if os.path.isfile(pattern):
        return [os.path.abspath(pattern)]
    matches = glob.glob(pattern, recursive=True)
    return sorted(os.path.abspath(path) for path in matches if os.path.isfile(path))


def _is_searched(folder, root, entered, contents) -> bool:
    """Return whether a folder is to be searched: not a hidden one, and none that was entered under another name."""
    if _is_hidden(folder.name):
        contents.left_out["hidden folders"] += 1
        return False
    real_path = os.path.realpath(folder)
    if Path(os.path.realpath(root)).is_relative_to(real_path) and real_path not in entered:
        contents.left_out["links to folders above"] += 1
        return False
    if real_path in entered:
        contents.left_out["folders linked again"] += 1
        return False
    entered.add(real_path)
    return True


def _add_file(file, endings, contents):
    """Add one file to the files of `contents`, or to its counts."""
    ending = file.suffix.lower()
    if _is_hidden(file.name):
        if ending in endings:
            contents.left_out["hidden files"] += 1
    elif ending not in endings:
        contents.others[ending] += 1
        if ending in OTHER_SOUND:
            contents.left_out[f"{ending}, which cannot be read: convert to wav or flac"] += 1
    elif not os.path.exists(file):
        contents.left_out["links to what is not there"] += 1
    else:
        contents.files.append(file)


def _is_hidden(name) -> bool:
    """Return whether a name is that of a hidden file, of trash or of a folder of the operating system."""
    return name.startswith((".", "~$")) or name.lower() in SYSTEM
