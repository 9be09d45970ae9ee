"""Fetch an archive, check its hash, and unpack it safely."""

import shutil
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pooch


def cache() -> Path:
    """The folder in which downloads are kept, the platform's own."""
    return Path(pooch.os_cache("xai_lib"))


def fetch(url, known_hash, folder) -> Path:
    """Download a zip file of `known_hash` ("md5:...") and unpack it into `folder`, which appears once it is complete.

    ValueError where it has another hash, or would land outside of `folder`.
    """
    folder = Path(folder)
    archive = Path(pooch.retrieve(url, known_hash, url.rsplit("/", 1)[-1], folder.parent, progressbar=True))
    unpack(archive, folder)
    return folder


def unpack(archive, folder) -> None:
    """Unpack a zip file; one with an absolute path or ".." in it is refused whole (ValueError)."""
    folder = Path(folder)
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            for kind in (PurePosixPath(name), PureWindowsPath(name)):
                if kind.anchor or ".." in kind.parts:
                    raise ValueError(f"{archive} was not unpacked: its member {name!r} would land outside of {folder}")
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        opened.extractall(partial)
    partial.rename(folder)
