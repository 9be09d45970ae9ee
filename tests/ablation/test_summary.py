"""Summaries of sweeps by variables that they do not have."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xai_lib import ablation


@pytest.mark.parametrize("variable", ["target", "clean_logits", "rms"])
def test_summary_names_valid_variables(variable):
    """A variable that is unknown, or not measured in clips for sets of neurons, is refused with those that are."""
    result = xr.Dataset(
        {
            "target_change": (("clip", "layer", "neuron_set"), np.zeros((2, 1, 3))),
            "kl": (("clip", "layer", "neuron_set"), np.zeros((2, 1, 3))),
            "clean_logits": (("clip", "label"), np.zeros((2, 2))),
            "rms": (("layer", "neuron_set"), np.zeros((1, 3))),
        }
    )
    with pytest.raises(ValueError, match=f"unknown variable '{variable}': this result has target_change, kl$"):
        ablation.summary(result, variable)
