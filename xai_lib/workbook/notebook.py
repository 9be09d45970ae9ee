"""Setup of a notebook (parameters, seeds, corpus, model, split) and storage of its results."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from .. import __version__
from .parameters import check, folder_name

if TYPE_CHECKING:
    import torch

    from ..models import Model

Result = TypeVar("Result")
ROOT = Path(__file__).resolve().parents[2]
_NEED_TIMELINE = ("01", "02", "03", "04")  # numbers of the notebooks that need a sequence of frames


def seed_everything(seed: int) -> None:
    """Seed random, numpy and torch (captum draws from the last two) and ask torch for repeatable kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it costs time and guards only against bugs
    torch.backends.cudnn.benchmark = False


def fingerprint(clips: pd.DataFrame) -> str:
    """Return a hash of the corpus: relative paths, sizes in bytes and labels, independent of their order."""
    parent = os.path.commonpath([os.path.dirname(path) for path in clips["path"]])
    labels = clips["label"].astype(object) if "label" in clips else [None] * len(clips)
    rows = []
    for path, label in zip(clips["path"], labels):
        relative_path = Path(os.path.relpath(path, parent)).as_posix()
        rows.append(f"{relative_path} {os.path.getsize(path)} {label}")
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:16]


def _commit() -> str | None:
    """Return the git commit of the checkout, with "+" if files differ from it; None without git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.SubprocessError):
        return None


def setup(name: str, **parameters) -> Run:
    """Set up a notebook: seeds, style, corpus, model, split and the clips to explain; print what was set up.

    Parameters
    ----------
    name : str
        Name of the notebook, "03_sign_flip_ablation"; its number is part of the figures' names.
    **parameters
        As in the parameters cell (default: `parameters.DEFAULTS`). Raises ValueError if one is wrong, or if the model
        lacks a label of the corpus.

    Returns
    -------
    Run
        `clips` (drawn, with `split`), `train`, `test`, `explain`, `model`, every parameter, and `save`.
    """
    values = check(parameters)
    seed_everything(values["seed"])
    _set_up_libraries()
    from .. import corpora, models
    from . import inputs

    corpus = corpora.load(values["corpus"], root=values["root"])
    model = models.load(values["model"], device=values["device"])
    _check_model(model, name, values["emotion"])
    _check_labels(model, corpus)
    _check_position(model, values["layer"], values["neuron"])

    skipped: dict[str, str] = {}
    corpus = inputs.split(corpus, model, seed=values["seed"])
    clips = _draw_clips(corpus, model, values["max_clips"], values["seed"], skipped)
    train = clips[clips["split"] == "train"]
    test = clips[clips["split"] == "test"]

    target_clips = test[test["label"] == values["emotion"]]
    recognised = _recognised_clips(model, target_clips, values["emotion"])
    if values["files"] is None:
        explain = _draw_clip_to_explain([recognised, target_clips, test], values["seed"])
    else:
        explain = inputs.own_files(values["files"], model, skipped)

    summary = {
        "model": f"{model.name}: {', '.join(model.labels)}; layers 0–{model.n_layers}",
        "corpus": f"{Path(values['corpus']).name}: {len(corpus)} clips; drawn {len(train)} train, {len(test)} test",
        **_test_speakers(model, test),
        "target": (
            f"{values['emotion']}: the model recognises it in {len(recognised)} of {len(target_clips)} test clips of it"
        ),
        "explained": _file_names(explain, drawn=values["files"] is None and len(recognised) > 0),
    }
    settings = {key: value for key, value in values.items() if key not in ("model", "device")}
    run = Run(
        name=name,
        parameters=values,
        **settings,
        model=model,
        device=model.device,
        clips=clips,
        train=train,
        test=test,
        explain=explain,
        corpus_fingerprint=fingerprint(corpus),
        summary=summary,
        skipped=skipped,
    )
    print(run)
    return run


def _set_up_libraries() -> None:
    """Set the figures' style, and silence the messages and progress bars of transformers."""
    import transformers

    from ..plots import style

    style.use()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _check_model(model, name, emotion) -> None:
    """Raise ValueError if the model cannot be used in the notebook `name`, or has no class `emotion`."""
    model.require_trained()
    model.target(emotion)
    if name[:2] in _NEED_TIMELINE and not model.architecture.timeline:
        raise ValueError(
            f"{model.name} represents sound as patches of time and frequency, but this notebook needs a sequence of "
            "frames: use notebook 05 or 06, or a WavLM"
        )


def _check_labels(model, corpus) -> None:
    """Raise ValueError if the corpus has labels that the model does not know."""
    unknown = sorted(set(corpus["label"].dropna()) - set(model.labels))
    if unknown:
        raise ValueError(
            f"{model.name} does not know the labels {', '.join(unknown)} of this corpus: map them to its own "
            f"({', '.join(model.labels)}) in a CSV file and pass that as corpus, or drop those clips"
        )


def _check_position(model, layer, neuron) -> None:
    """Raise ValueError if the model does not have the layer, or no part of it has the neuron."""
    from ..models.sites import PARTS

    if layer is not None:
        model.check(layer)
    if neuron is not None:
        widest = max(model.n_neurons((1, part)) for part in PARTS)
        if neuron >= widest:
            raise ValueError(f"neuron {neuron} out of range: the widest part of this model has 0–{widest - 1}")


def _draw_clips(corpus, model, max_clips, seed, skipped) -> pd.DataFrame:
    """Draw at most `max_clips` of each side, leave out unusable ones (added to `skipped`), and check for copies."""
    from . import inputs

    sides = []
    for side in ("train", "test"):
        sides.append(inputs.subsample(corpus[corpus["split"] == side], max_clips, seed))
    clips = inputs.usable(pd.concat(sides).sort_index(), model, skipped)
    inputs.check_sounds(clips)
    return clips


def _recognised_clips(model, clips, emotion) -> pd.DataFrame:
    """Return the clips for which the model predicts `emotion`."""
    if clips.empty:
        return clips
    return clips[model.predict(clips)["label"] == emotion]


def _draw_clip_to_explain(candidates, seed) -> pd.DataFrame:
    """Draw one clip from the first of the tables that is not empty."""
    for clips in candidates:
        if len(clips):
            return clips.sample(1, random_state=seed)
    raise ValueError("there is no test clip to explain")


def _test_speakers(model, test) -> dict[str, str]:
    """Return the line on test speakers (or recordings) of the run's summary, {heading: text}."""
    from . import inputs

    kind, _, text = inputs.describe_test_speakers(model, test).partition("  ")
    return {f"test {kind}": text}


def _file_names(clips, *, drawn) -> str:
    """Return the names of the first four files, the number of others, and whether they were `drawn`."""
    from ..audio import sources

    names = [Path(str(source)).name for source in sources(clips)]
    text = ", ".join(names[:4])
    if len(names) > 4:
        text += f" and {len(names) - 4} more"
    if drawn:
        text += " (drawn from those)"
    return text


@dataclass(eq=False, repr=False)
class Run:
    """Run of one notebook: its parameters, clips and model, and a folder that is created by the first `save`.

    A run shows itself as a small table: model, corpus, test speakers, target, explained clips, and files left out.

    Attributes
    ----------
    name : str
        Name of the notebook, such as "03_sign_flip_ablation".
    parameters : dict
        All parameters as text and numbers; each but `model` and `device` is an attribute, too.
    clips, train, test : DataFrame
        The clips drawn, with the column `split`, and its two sides.
    explain : DataFrame
        The clips that are explained one by one.
    corpus_fingerprint : str
        `fingerprint` of the whole corpus.
    summary : dict
        Lines that describe the run, {heading: text}.
    skipped : dict
        Files that were left out, {path: reason}.
    """

    name: str
    parameters: dict
    corpus: str
    root: str | None
    files: str | list[str] | None
    emotion: str
    layer: int | None
    neuron: int | None
    k: int
    max_clips: int | None
    batch: int
    seed: int
    profile: str
    model: Model
    device: torch.device
    clips: pd.DataFrame
    train: pd.DataFrame
    test: pd.DataFrame
    explain: pd.DataFrame
    corpus_fingerprint: str
    summary: dict[str, str]
    skipped: dict[str, str]

    def __repr__(self) -> str:
        lines = []
        for heading, text in self._rows():
            width = 8 if heading in ("model", "corpus", "target") else 15
            lines.append(f"{heading}  ".ljust(width) + text)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        table = pd.DataFrame(self._rows())
        with pd.option_context("display.max_colwidth", None):  # otherwise pandas would truncate the text
            return table.to_html(header=False, index=False, border=0)

    def _rows(self) -> list[tuple[str, str]]:
        """Return heading and text of each line that describes the run."""
        rows = list(self.summary.items())
        for path, reason in self.skipped.items():
            rows.append(("left out", f"{Path(path).name}: {reason}"))
        return rows

    @cached_property
    def folder(self) -> Path:
        """Return the folder of results: XAI_RUN_DIR, shared by notebooks that run together, or the run's own folder."""
        return Path(os.environ.get("XAI_RUN_DIR") or ROOT / "results" / folder_name(self.parameters))

    def save(self, result: Result, name: str) -> Result:
        """Write a figure, an xarray result or a table under `name` and return it, so that the notebook displays it.

        Figures go to figures/<number>_<name>.png; results to data/ as netCDF, tables as CSV. Files are written
        atomically. Provenance is stored in the PNG and netCDF, and as JSON beside them.
        """
        import matplotlib.pyplot as plt
        import xarray as xr
        from matplotlib.figure import Figure

        provenance = json.dumps(self.provenance())
        kind = "figures" if isinstance(result, Figure) else "data"
        path = self.folder / kind / f"{self.name[:2]}_{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(result, Figure):
            options = {"format": "png", "dpi": 150, "bbox_inches": "tight", "metadata": {"Comment": provenance}}
            _write_atomically(path.with_suffix(".png"), lambda part: result.savefig(part, **options))
            plt.close(result)  # the notebook displays the returned figure; an open one would be displayed twice
        elif isinstance(result, (xr.Dataset, xr.DataArray)):
            plain = netcdf_safe(result)
            plain.attrs.setdefault("provenance", provenance)
            _write_atomically(path.with_suffix(".nc"), lambda part: plain.to_netcdf(part, engine="h5netcdf"))
        elif isinstance(result, (pd.DataFrame, pd.Series)):
            _write_atomically(path.with_suffix(".csv"), result.to_csv)
        else:
            raise ValueError(f"save takes a Figure, an xarray result or a pandas table, not {type(result).__name__}")
        text = json.dumps(self.provenance(), indent=1)
        _write_atomically(self.folder / f"{self.name}.json", lambda part: part.write_text(text))
        return result

    def provenance(self) -> dict:
        """Return the provenance of the results: model, corpus, parameters, versions, commit."""
        return self._provenance

    @cached_property
    def _provenance(self) -> dict:
        """Return the provenance, which is determined once, since it asks git and the installed packages."""
        network = getattr(self.model, "network", None)
        config = getattr(network, "config", None)
        speakers = self.test["speaker"].dropna() if "speaker" in self.test else []
        versions = {"xai_lib": __version__}
        for package in ("torch", "transformers"):
            versions[package] = metadata.version(package)
        return {
            "model": self.model.name,
            "train_speakers": self.model.train_speakers or "not recorded",
            "head_train_speakers": self.model.head_train_speakers,
            "selection_speakers": self.model.selection_speakers,
            "test_speakers": sorted({str(name) for name in speakers}),
            "revision": getattr(config, "_commit_hash", None),
            "corpus": self.corpus_fingerprint,
            "parameters": self.parameters,
            "device": str(self.device),
            "versions": versions,
            "commit": _commit(),
        }


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file beside `path`, then move it into place, so that the file is complete or absent."""
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def netcdf_safe(result: Result) -> Result:
    """Return a copy with text as plain numpy strings, missing values empty, since netCDF has no None."""
    safe = result.copy()
    variables = {**result.coords, **getattr(result, "data_vars", {})}
    for name, array in variables.items():
        if isinstance(array.dtype, np.dtype) and array.dtype != object:
            continue
        text = _to_text(np.asarray(array.values, dtype=object))
        if name in result.coords:
            safe = safe.drop_vars(name).assign_coords({name: (array.dims, text)})
        else:
            safe = safe.assign({name: (array.dims, text)})
    return safe


@np.vectorize(otypes=[str])
def _to_text(value: object) -> str:
    """Return a value as text, a missing one as an empty text."""
    return "" if pd.isna(value) else str(value)
