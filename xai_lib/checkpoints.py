"""Read a checkpoint: folder or hub id, weights as float32, and why its head counts as trained."""

import warnings
from pathlib import Path

import torch

_DATA = Path(__file__).resolve().parent.parent / "data"
POCKET = _DATA / "pocket-wavlm"
BUNDLED = {str(POCKET): "pocket", str(_DATA / "pocket-ast"): "pocket-ast"}  # names by folder
_HEAD = ("projector.", "classifier.", "layer_weights")
_HARMLESS = ("masked_spec_embed",)  # a vector that only training uses


def folder(name_or_path) -> str:
    """Where to read from; a name that looks like a folder must be one."""
    name_or_path = {name: path for path, name in BUNDLED.items()}.get(str(name_or_path), name_or_path)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} has no config.json: it is not a model that save_pretrained wrote")
        return str(path)
    if path.is_absolute() or str(name_or_path).startswith((".", "~")) or str(name_or_path).count("/") > 1:
        raise FileNotFoundError(f"there is no folder {path}: give a model folder, a hub id or 'pocket'")
    return str(name_or_path)


def _read(function, folder, **options):
    """Read something of a checkpoint; say in words why that failed."""
    try:
        return function(folder, trust_remote_code=False, **options)
    except OSError as error:
        how = "without a network, download the model elsewhere and give its folder"
        raise FileNotFoundError(f"{folder} could not be read ({str(error).splitlines()[0]}): {how}") from error


def config(folder):
    """The checkpoint's configuration."""
    from transformers import AutoConfig

    return _read(AutoConfig.from_pretrained, folder)


def network(folder, config, *, bare=False):
    """The network, and why its head counts as trained, if it does; a `bare` one takes the user's own."""
    from transformers import AutoModel, AutoModelForAudioClassification

    kind = AutoModel if bare else AutoModelForAudioClassification
    options = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    network, info = _read(kind.from_pretrained, folder, **options)
    untrained = {key for key in info["missing_keys"] if key.startswith(_HEAD)}
    missing = sorted(key for key in set(info["missing_keys"]) - untrained if not key.endswith(_HARMLESS))
    if missing:  # they would be random
        raise ValueError(f"{folder} lacks {len(missing)} of the encoder's weights, such as {missing[0]}")
    if bare:
        return network, "head given by the user"
    fitted = getattr(config, "xai_metrics", None)
    return network, None if untrained else "weights in the checkpoint" + (f", metrics {fitted}" if fitted else "")


def preprocessor(folder) -> dict:
    """Rate and normalisation, from the checkpoint's feature extractor."""
    from transformers.feature_extraction_utils import FeatureExtractionMixin

    try:
        return FeatureExtractionMixin.get_feature_extractor_dict(folder)[0]
    except OSError:
        taken = "taken to be 16 kHz, and the waveform goes in as it is"
        warnings.warn(f"{folder} has no preprocessor_config.json: {taken}", stacklevel=3)
        return {}


def device(name: str) -> torch.device:
    """A device that is there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: torch finds no GPU here; use 'cpu' or 'auto'")
    return device
