"""Reading of checkpoints: folder or hub id, weights as float32, and the evidence that the head is trained."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_DATA = Path(__file__).resolve().parents[2] / "data"
POCKET = _DATA / "pocket-wavlm"
BUNDLED = {str(POCKET): "pocket", str(_DATA / "pocket-ast"): "pocket-ast"}  # names by folder
_HEAD = ("projector.", "classifier.", "layer_weights")
_HARMLESS = ("masked_spec_embed",)  # a vector that only training uses


def folder(name_or_path: str | Path) -> str:
    """Return the folder or hub id to read from; raise FileNotFoundError if a name looks like a folder but is none."""
    text = str(name_or_path)
    for bundled_path, name in BUNDLED.items():
        if text == name:
            text = bundled_path
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} has no config.json: expected a model folder written by save_pretrained")
        return str(path)
    if path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise FileNotFoundError(
            f"there is no folder {path}: expected a model folder, a hub id, {' or '.join(BUNDLED.values())}"
        )
    return text


def read(function: Callable, folder: str, **options):
    """Call a transformers function that reads a part of a checkpoint, and turn its errors into clear messages."""
    try:
        return function(folder, trust_remote_code=False, **options)
    except OSError as error:
        advice = "without a network, download the model elsewhere and give its folder"
        if not Path(folder).is_dir():
            advice = f"the bundled models are {' and '.join(BUNDLED.values())}; {advice}"
        raise FileNotFoundError(f"{folder} could not be read ({_first_line(error)}): {advice}") from error
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        advice = "the file is cut off or broken, so download it again"
        raise ValueError(f"the weights of {folder} cannot be read ({_first_line(error)}): {advice}") from error
    except (ValueError, KeyError) as error:
        if "custom code" in str(error) or "trust_remote_code" in str(error):
            raise ValueError(
                f"{folder} comes with code of its own, which is not run here: build the network with that code and "
                "pass it to models.wrap(network, …)"
            ) from error
        raise ValueError(f"{folder} cannot be opened: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error message, or the name of its type."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _check_weights(folder: str) -> None:
    """Raise FileNotFoundError if a weights file is a pointer only, as Git leaves it without LFS."""
    for path in [*Path(folder).glob("*.safetensors"), *Path(folder).glob("*.bin")]:
        with open(path, "rb") as file:
            if file.read(40).startswith(b"version https://git-lfs"):
                raise FileNotFoundError(
                    f"{path} is a pointer of Git LFS, not the weights: run `git lfs pull` in its repository"
                )


def config(folder: str) -> PretrainedConfig:
    """Return the configuration of a checkpoint."""
    from transformers import AutoConfig

    return read(AutoConfig.from_pretrained, folder)


def network(folder: str, config: PretrainedConfig, *, bare: bool = False) -> tuple[PreTrainedModel, str | None]:
    """Return the network, and why its head counts as trained, or None; `bare` loads no head, for a user's own."""
    from transformers import AutoModel, AutoModelForAudioClassification

    kind = AutoModel if bare else AutoModelForAudioClassification
    options = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    _check_weights(folder)
    try:
        network, info = read(kind.from_pretrained, folder, **options)
    except RuntimeError as error:
        if "mismatch" not in str(error).lower():
            raise
        raise ValueError(
            f"the weights of {folder} have other sizes than its config.json says ({config.num_labels} labels, "
            f"{config.hidden_size} neurons): one of the two belongs to another model"
        ) from error
    _raise_on_broken_weights(folder, network)
    head_is_trained = _is_head_complete(folder, info["missing_keys"])
    if bare:
        return network, "head given by the user"
    if not head_is_trained:
        return network, None
    metrics = getattr(config, "xai_metrics", None)
    if metrics:
        return network, f"weights in the checkpoint, metrics {metrics}"
    return network, "weights in the checkpoint"


def _raise_on_broken_weights(folder, network):
    """Raise ValueError if weights are NaN or infinite."""
    broken = [name for name, weight in network.state_dict().items() if not torch.isfinite(weight).all()]
    if broken:
        raise ValueError(
            f"{len(broken)} weights of {folder} hold NaN or infinite numbers, such as {broken[0]}: training "
            "diverged, use an earlier checkpoint"
        )


def _is_head_complete(folder, missing_keys) -> bool:
    """Return True if no weight of the head is missing; raise ValueError if one of the encoder is, as it is random."""
    encoder_keys = [key for key in missing_keys if not key.startswith(_HEAD)]
    missing = sorted(key for key in encoder_keys if not key.endswith(_HARMLESS))
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the encoder's weights, such as {missing[0]}: use a complete checkpoint"
        )
    return len(encoder_keys) == len(missing_keys)


def preprocessor(folder: str) -> dict:
    """Return rate and normalisation from the feature extractor of a checkpoint."""
    from transformers.feature_extraction_utils import FeatureExtractionMixin

    try:
        return FeatureExtractionMixin.get_feature_extractor_dict(folder)[0]
    except OSError:
        default = "16 kHz and no normalisation are assumed"
        warnings.warn(f"{folder} has no preprocessor_config.json: {default}", stacklevel=3)
        return {}


def device(name: str) -> torch.device:
    """Return the torch device of that name; raise ValueError if it is not available or not supported."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    expected = "'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {name!r} is unknown: expected {expected}") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device {name!r} is not supported: expected {expected}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        reason = f"torch finds {torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "torch finds no GPU"
        raise ValueError(f"device {name}: {reason}; use 'cpu' or 'auto'")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name}: torch finds no Metal GPU; use 'cpu' or 'auto'")
    return device
