"""Setup of a notebook (parameters, seeds, corpus, model, split) and storage of its results."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from .. import __version__
from .parameters import check, folder_name

SIDES = ("train", "test")
ROOT = Path(__file__).resolve().parents[2]


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
    rows = sorted(
        f"{Path(os.path.relpath(path, parent)).as_posix()} {os.path.getsize(path)} {label}"
        for path, label in zip(clips["path"], labels)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _commit() -> str | None:
    """Return the git commit of the checkout, with "+" if files differ from it; None without git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.SubprocessError):
        return None


def setup(name: str, **parameters) -> Run:
    """Set up a notebook: seeds, style, corpus, model, split and the clips to explain.

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
    import transformers

    from .. import corpora, models
    from ..audio import sources
    from ..models.sites import PARTS
    from ..plots import style
    from . import inputs

    style.use()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    corpus = corpora.load(values["corpus"], root=values["root"])
    model = models.load(values["model"], device=values["device"])
    model.require_trained()
    model.target(values["emotion"])
    if name[:2] in ("01", "02", "03", "04") and not model.architecture.timeline:
        raise ValueError(
            f"{model.name} represents sound as patches of time and frequency, but this notebook needs a sequence of "
            "frames: use notebook 05 or 06, or a WavLM"
        )
    unknown = sorted(set(corpus["label"].dropna()) - set(model.labels))
    if unknown:
        raise ValueError(
            f"{model.name} does not know the labels {', '.join(unknown)} of this corpus: map them to its own "
            f"({', '.join(model.labels)}) in a CSV file and pass that as corpus, or drop those clips"
        )
    if values["layer"] is not None:
        model.check(values["layer"])
    widest = max(model.n_neurons((1, part)) for part in PARTS)
    if values["neuron"] is not None and values["neuron"] >= widest:
        raise ValueError(f"neuron {values['neuron']} out of range: the widest part of this model has 0–{widest - 1}")
    corpus = inputs.split(corpus, model, seed=values["seed"])
    sides = [inputs.subsample(corpus[corpus["split"] == side], values["max_clips"], values["seed"]) for side in SIDES]
    skipped = {}
    clips = inputs.usable(pd.concat(sides).sort_index(), model, skipped)
    inputs.check_sounds(clips)
    run = Run(**{**values, "name": name, "parameters": values, "model": model, "device": model.device, "clips": clips})
    run.corpus_fingerprint = fingerprint(corpus)
    run.train, run.test = (clips[clips["split"] == side] for side in SIDES)
    of_target = run.test[run.test["label"] == run.emotion]
    correct = of_target[model.predict(of_target)["label"] == run.emotion] if len(of_target) else of_target
    if run.files is None:
        run.explain = next(filter(len, (correct, of_target, run.test))).sample(1, random_state=run.seed)
        drawn_from = " (drawn from those)" if len(correct) else ""
    else:
        run.explain, drawn_from = inputs.own_files(run.files, model, skipped), ""
    names = [Path(str(source)).name for source in sources(run.explain)]
    print(
        f"model   {model.name}: {', '.join(model.labels)}; layers 0–{model.n_layers}\n"
        f"corpus  {Path(values['corpus']).name}: {len(corpus)} clips; "
        f"drawn {len(run.train)} train, {len(run.test)} test\n"
        f"test {inputs.describe_test_speakers(model, run.test)}\n"
        f"target  {run.emotion}: the model recognises it in {len(correct)} of {len(of_target)} test clips of it\n"
        f"explained      {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}{drawn_from}",
        *(f"left out       {Path(path).name}: {reason}" for path, reason in skipped.items()),
        sep="\n",
    )
    return run


class Run(SimpleNamespace):
    """Run of one notebook: its parameters, clips and model, and a folder that is created by the first `save`."""

    @property
    def folder(self) -> Path:
        """Return the folder of results: XAI_RUN_DIR, shared by notebooks that run together, or the run's own folder."""
        if "_folder" not in vars(self):
            self._folder = Path(os.environ.get("XAI_RUN_DIR") or ROOT / "results" / folder_name(self.parameters))
        return self._folder

    def save(self, result, name: str):
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
        if "_provenance" not in vars(self):
            config = getattr(getattr(self.model, "network", None), "config", None)
            speakers = self.test["speaker"].dropna() if "speaker" in self.test else []
            self._provenance = {
                "model": self.model.name,
                "train_speakers": self.model.train_speakers or "not recorded",
                "head_train_speakers": self.model.head_train_speakers,
                "selection_speakers": self.model.selection_speakers,
                "test_speakers": sorted({str(name) for name in speakers}),
                "revision": getattr(config, "_commit_hash", None),
                "corpus": self.corpus_fingerprint,
                "parameters": self.parameters,
                "device": str(self.device),
                "versions": {"xai_lib": __version__, **{p: metadata.version(p) for p in ("torch", "transformers")}},
                "commit": _commit(),
            }
        return self._provenance


def _write_atomically(path: Path, write) -> None:
    """Write to a temporary file beside `path`, then move it into place, so that the file is complete or absent."""
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def netcdf_safe(result):
    """Return a copy with text as plain numpy strings, missing values empty, since netCDF has no None."""
    result, to_text = result.copy(), np.vectorize(lambda value: "" if pd.isna(value) else str(value), otypes=[str])
    for name, array in [*result.coords.items(), *getattr(result, "data_vars", {}).items()]:
        if not isinstance(array.dtype, np.dtype) or array.dtype == object:
            plain = {name: (array.dims, to_text(np.asarray(array.values, dtype=object)))}
            is_coordinate = name in result.coords
            result = result.drop_vars(name).assign_coords(plain) if is_coordinate else result.assign(plain)
    return result
