"""Corpora as pandas DataFrames of clips: loading, conversion from any kind of audio, splitting and sampling."""

from .feature_table import features_table
from .filenames import EMOTIONS
from .loading import RAVDESS_ZIP, as_clips, excerpt, from_csv, from_folder, load, relabel, summary
from .sampling import balanced, draw, folds, split

__all__ = [
    "EMOTIONS",
    "RAVDESS_ZIP",
    "as_clips",
    "excerpt",
    "balanced",
    "draw",
    "features_table",
    "folds",
    "from_csv",
    "from_folder",
    "load",
    "relabel",
    "split",
    "summary",
]
