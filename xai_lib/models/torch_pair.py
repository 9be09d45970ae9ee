"""Check that torch and torchaudio fit together."""

import importlib
from importlib import metadata, util
from pathlib import Path

PAIR = {"torch": "2.14.1", "torchaudio": "2.11.0"}  # as in requirements.txt


def known_good() -> bool:
    """Return True if the installed wheels are the tested pair, without importing either."""
    try:
        versions = {name: metadata.version(name) for name in PAIR}
    except metadata.PackageNotFoundError:  # not installed by pip, so its version is unknown
        return False
    if versions != PAIR:
        return False
    audio = Path(util.find_spec("torchaudio").origin)
    installed = Path(str(metadata.distribution("torchaudio").locate_file("torchaudio/__init__.py")))
    # torchaudio's Linux wheel needs the CUDA build of torch; a CPU build may carry the same version.
    cuda_library = Path(util.find_spec("torch").origin).parent / "lib" / "libtorch_cuda.so"
    return audio == installed and cuda_library.exists()


def check() -> None:
    """Raise ImportError with a clear message if torch and torchaudio do not fit, before transformers fails obscurely.

    transformers imports torchaudio wherever it is installed, so a broken one breaks every speech model. Importing it
    here costs seconds, so that is done only if the installed files are not the tested pair. No torchaudio is fine.
    """
    if util.find_spec("torchaudio") is None or util.find_spec("torch") is None:
        return
    try:
        if not known_good():
            importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        requirements = " ".join(f"{name}=={version}" for name, version in PAIR.items())
        raise ImportError(
            f"torchaudio cannot be loaded beside this torch ({type(error).__name__}: {reason}); install the "
            f"pair that works with `pip install {requirements}`, or remove it with `pip uninstall torchaudio`."
        ) from error
