"""Whether torch and torchaudio fit, said in one sentence before transformers fails obscurely over it."""

import importlib
from importlib import metadata, util
from pathlib import Path

PAIR = {"torch": "2.14.1", "torchaudio": "2.11.0"}  # as in requirements.txt


def known_good() -> bool:
    """Whether the installed wheels are the tested pair, judged without importing either."""
    try:
        if any(metadata.version(name) != version for name, version in PAIR.items()):
            return False
    except metadata.PackageNotFoundError:  # not put there by pip, so nothing is known about it
        return False
    audio, torch = (Path(util.find_spec(name).origin) for name in ("torchaudio", "torch"))
    ours = Path(str(metadata.distribution("torchaudio").locate_file("torchaudio/__init__.py")))
    # torchaudio's Linux wheel needs the CUDA build of torch; a CPU build may carry the same version.
    return audio == ours and (torch.parent / "lib" / "libtorch_cuda.so").exists()


def check() -> None:
    """Say in one sentence that torch and torchaudio do not fit, before transformers fails obscurely over it.

    transformers imports torchaudio wherever it is found, so a broken one breaks every speech model. Importing it here
    costs seconds, so that is done only where the installed files are not the tested pair. None at all is fine.
    """
    if util.find_spec("torchaudio") is None or util.find_spec("torch") is None:
        return
    try:
        if not known_good():
            importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        wanted = " ".join(f"{name}=={version}" for name, version in PAIR.items())
        raise ImportError(
            f"torchaudio cannot be loaded beside this torch ({type(error).__name__}: {reason}); install the "
            f"pair that works with `pip install {wanted}`, or remove it with `pip uninstall torchaudio`."
        ) from error
