from __future__ import annotations

import os
import random
from pathlib import Path

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")


@pytest.fixture(scope="session")
def device(request):
    """The device that the tests run on (--device)."""
    import torch

    name = request.config.getoption("--device")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.fail(f"--device {name} was asked for and torch finds no GPU")
    return name


@pytest.fixture(scope="session")
def real():
    """Folder of real recordings (ravdess/, esc10/, librispeech/)."""
    path = os.environ.get("XAI_REAL_DATA")
    if not path or not Path(path).is_dir():
        pytest.skip("real recordings are not here: set XAI_REAL_DATA to the folder that holds ravdess/")
    return Path(path)


@pytest.fixture(autouse=True)
def _seeds():
    """Each test starts from the same seeds and leaves no figure open."""
    import torch
    from matplotlib import pyplot as plt

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    plt.close("all")
