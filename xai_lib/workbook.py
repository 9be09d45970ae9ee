"""What every notebook does first: parameters, seeds, corpus, model, split; and where its results go."""

from __future__ import annotations

import glob
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

from . import __version__
from .parameters import check, folder_name

ROOT = Path(__file__).resolve().parent.parent


def seed_everything(seed: int) -> None:
    """Seed random, numpy and torch (captum draws from the last two) and ask torch for repeatable kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time and guards only against bugs
    torch.backends.cudnn.benchmark = False


def fingerprint(clips: pd.DataFrame) -> str:
    """Hash of the corpus: relative paths, sizes in bytes and labels, in no particular order."""
    parent = os.path.commonpath([os.path.dirname(path) for path in clips["path"]])
    labels = clips["label"].astype(object) if "label" in clips else [None] * len(clips)
    rows = sorted(
        f"{Path(os.path.relpath(path, parent)).as_posix()} {os.path.getsize(path)} {label}"
        for path, label in zip(clips["path"], labels)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _commit() -> str | None:
    """The git commit of the checkout, with "+" where files differ from it; None where there is no git."""
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return out.stdout.strip() or None


def setup(name: str, **parameters) -> Run:
    """Make a notebook ready: seeds, style, corpus, model, split and the clips to explain.

    Parameters
    ----------
    name : str
        Of the notebook, "03_sign_flip_ablation"; its figures carry the number.
    **parameters
        As in the parameters cell (`parameters.DEFAULTS`). Those left out keep their default.

    Returns
    -------
    Run
        `clips` (drawn, with `split`), `train`, `test`, `explain`, `model`, every parameter, and `save`.

    Raises
    ------
    ValueError
        A parameter is wrong, or the labels of the corpus are not those of the model.
    """
    values = check(parameters)
    seed_everything(values["seed"])
    import transformers

    from . import corpora, models
    from .plots import style

    style.use()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    corpus = corpora.load(values["corpus"], root=values["root"])
    model = models.load(values["model"], device=values["device"])
    model.target(values["emotion"])
    unknown = sorted(set(corpus["label"].dropna()) - set(model.labels))
    if unknown:
        raise ValueError(
            f"{model.name} does not know the labels {', '.join(unknown)} of this corpus: map them to its own "
            f"({', '.join(model.labels)}) in a CSV file and give that as corpus, or drop those clips"
        )
    heard = {*(model.trained_on or []), *(model.head_trained_on or [])}
    corpus = _with_split(corpus, heard, values["seed"])
    parts = [_draw(corpus[corpus["split"] == part], values["max_clips"], values["seed"]) for part in ("train", "test")]
    clips = pd.concat(parts).sort_index()
    run = Run(**{**values, "name": name, "parameters": values, "model": model, "device": model.device, "clips": clips})
    run.corpus_fingerprint = fingerprint(corpus)
    run.train, run.test = (clips[clips["split"] == part] for part in ("train", "test"))
    run.explain = _explain(run, corpora)
    test = set(run.test["speaker"].dropna()) if "speaker" in clips else set()
    print(
        f"model   {model.name}: {', '.join(model.labels)}; layers 0–{model.n_layers}\n"
        f"corpus  {Path(values['corpus']).name}: {len(corpus)} clips; "
        f"drawn {len(run.train)} train, {len(run.test)} test\n"
        f"test speakers  {_of_whom(model, test)}\n"
        f"explained      {', '.join(Path(path).name for path in run.explain['path'][:4])}"
        f"{f' and {len(run.explain) - 4} more' if len(run.explain) > 4 else ''}; target {values['emotion']}"
    )
    return run


def _with_split(corpus: pd.DataFrame, heard: set, seed: int) -> pd.DataFrame:
    """Column `split`: speakers whom the model has never heard are test; else drawn by speaker."""
    from . import corpora

    if "split" in corpus:
        return _checked(corpus)
    if "speaker" in corpus:
        known = corpus["speaker"].isin(heard)
        if known.any() and not known.all():
            return corpus.assign(split=np.where(known, "train", "test"))
    return corpora.split(corpus, seed=seed)


def _checked(corpus: pd.DataFrame) -> pd.DataFrame:
    """The corpus, if its column `split` has two sides and no speaker on both."""
    known = sorted(set(corpus["split"].dropna().astype(str)))
    if known != ["test", "train"] or corpus["split"].isna().any():
        raise ValueError(
            f'the column split must say "train" or "test" for every clip, and both must occur; it says {known}: '
            "rename or drop the other clips, or drop the column to have one drawn"
        )
    sides = corpus.groupby("speaker")["split"].nunique() if "speaker" in corpus else pd.Series(dtype=int)
    both = [str(name) for name in sides[sides > 1].index]
    if both:
        raise ValueError(
            f"{len(both)} speakers are both in train and in test ({', '.join(both[:5])}): give each speaker one side, "
            "or drop the column split to have it drawn"
        )
    return corpus


def _of_whom(model, test: set) -> str:
    """How many test speakers there are, and what the model knows of them already."""
    if model.trained_on is None:
        told = f"{len(test)}; whom the encoder has heard is not recorded"
    else:
        told = f"{len(test)}, of whom the encoder has heard {len(test & set(model.trained_on))}"
    if model.head_trained_on is not None:
        told += f", the head {len(test & set(model.head_trained_on))}"
    chose = sorted(test & set(model.chosen_on or []))
    return told + (f"; its weights were chosen on {', '.join(chose)}" if chose else "")


def _draw(clips: pd.DataFrame, n: int | None, seed: int) -> pd.DataFrame:
    """At most `n` clips, balanced over emotion and speaker."""
    from . import corpora

    return clips if n is None or len(clips) <= n else corpora.balanced(clips, n, seed=seed)


def _explain(run: Run, corpora) -> pd.DataFrame:
    """The user's own files, or one clip of the emotion by a test speaker."""
    if run.files is None:
        pool = run.test if (run.test["label"] == run.emotion).any() else run.clips
        if not (pool["label"] == run.emotion).any():
            return pool.head(1)
        return corpora.draw(pool, 1, label=run.emotion, seed=run.seed)
    patterns = [run.files] if isinstance(run.files, str) else run.files
    paths = []
    for pattern in map(os.path.expanduser, patterns):
        if os.path.isdir(pattern):
            pattern = os.path.join(glob.escape(pattern), "*.*")
        found = (
            [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
        )
        if not found:
            raise FileNotFoundError(
                f"files: nothing is called {pattern}; give a path, a glob such as 'mine/*.wav', or a list"
            )
        paths += [os.path.abspath(path) for path in found]
    return pd.DataFrame({"path": paths, "label": None, "speaker": None})


class Run(SimpleNamespace):
    """One notebook's run: its parameters, clips and model, and a folder that is made when first saved to."""

    @property
    def folder(self) -> Path:
        """Where results go: XAI_RUN_DIR, which notebooks run together share, or a folder of its own."""
        if "_folder" not in vars(self):
            self._folder = Path(os.environ.get("XAI_RUN_DIR") or ROOT / "results" / folder_name(self.parameters))
        return self._folder

    def save(self, result, name: str):
        """Write a figure, an xarray result or a table under `name` and give it back, to be shown.

        Figures go to figures/<number>_<name>.png; results to data/ as netCDF, tables as CSV. A file is either
        whole or not there. Provenance travels in the PNG and netCDF, and as JSON beside them.
        """
        import matplotlib.pyplot as plt
        import xarray as xr
        from matplotlib.figure import Figure

        provenance = json.dumps(self.provenance())
        kind = "figures" if isinstance(result, Figure) else "data"
        path = self.folder / kind / f"{self.name[:2]}_{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(result, Figure):
            _whole_file(
                path.with_suffix(".png"),
                lambda part: result.savefig(
                    part, format="png", dpi=150, bbox_inches="tight", metadata={"Comment": provenance}
                ),
            )
            plt.close(result)  # the notebook shows what it is given back; open, it would be shown twice
        elif isinstance(result, (xr.Dataset, xr.DataArray)):
            plain = _netcdf_safe(result)
            plain.attrs.setdefault("provenance", provenance)
            _whole_file(path.with_suffix(".nc"), lambda part: plain.to_netcdf(part, engine="h5netcdf"))
        elif isinstance(result, (pd.DataFrame, pd.Series)):
            _whole_file(path.with_suffix(".csv"), result.to_csv)
        else:
            raise ValueError(f"save takes a Figure, an xarray result or a pandas table, not {type(result).__name__}")
        _whole_file(
            self.folder / f"{self.name}.json", lambda part: part.write_text(json.dumps(self.provenance(), indent=1))
        )
        return result

    def provenance(self) -> dict:
        """How these results were made: model, corpus, parameters, versions, commit."""
        if "_provenance" not in vars(self):
            config = getattr(getattr(self.model, "network", None), "config", None)
            self._provenance = {
                "model": self.model.name,
                "trained_on": self.model.trained_on or "not recorded",
                "head_trained_on": self.model.head_trained_on,
                "chosen_on": self.model.chosen_on,
                "test_speakers": sorted(set(self.test["speaker"].dropna().astype(str)))
                if "speaker" in self.test
                else [],
                "revision": getattr(config, "_commit_hash", None),
                "corpus": self.corpus_fingerprint,
                "parameters": self.parameters,
                "device": str(self.device),
                "versions": {"xai_lib": __version__, **{p: metadata.version(p) for p in ("torch", "transformers")}},
                "commit": _commit(),
            }
        return self._provenance


def _whole_file(path: Path, write) -> None:
    """Write beside `path`, then move into place, so that a file is whole or absent."""
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _netcdf_safe(result):
    """A copy whose text is plain numpy text, missing values empty: netCDF has no None."""
    result = result.copy()
    for name, array in list(result.coords.items()) + list(getattr(result, "data_vars", {}).items()):
        if not isinstance(array.dtype, np.dtype) or array.dtype == object:
            values = np.asarray(array.values, dtype=object)
            text = np.array(["" if pd.isna(v) else str(v) for v in values.ravel()], dtype=str).reshape(values.shape)
            result = (
                result.drop_vars(name).assign_coords({name: (array.dims, text)})
                if name in result.coords
                else result.assign({name: (array.dims, text)})
            )
    return result
