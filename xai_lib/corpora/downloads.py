"""Downloads of archives: checked by their hash, and unpacked safely."""

import shutil
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pooch


def cache() -> Path:
    """Return the folder in which downloads are kept: the platform's cache folder."""
    return Path(pooch.os_cache("xai_lib"))


def fetch(url, known_hash, folder) -> Path:
    """Download a zip file of `known_hash` ("md5:...") and unpack it into `folder`, which appears once it is complete.

    Raises ValueError where the archive has another hash, or a member of it would land outside of `folder`.
    """
    folder = Path(folder)
    archive = Path(pooch.retrieve(url, known_hash, url.rsplit("/", 1)[-1], folder.parent, progressbar=True))
    unpack(archive, folder)
    return folder


def unpack(archive, folder) -> None:
    """Unpack a zip file; raise ValueError, with nothing unpacked, where a member has an absolute path or ".."."""
    folder = Path(folder)
    with zipfile.ZipFile(archive) as archive_file:
        for name in archive_file.namelist():
            for member_path in (PurePosixPath(name), PureWindowsPath(name)):
                if member_path.anchor or ".." in member_path.parts:
                    raise ValueError(f"{archive} was not unpacked: its member {name!r} would land outside of {folder}")
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        archive_file.extractall(partial)
    partial.rename(folder)
