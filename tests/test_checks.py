"""Arguments that are refused in one way everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from xai_lib.checks import require_whole_number


@pytest.mark.parametrize("value", [[5], 5.5, 5.0, "5", None, True, 0, np.array([5])])
def test_require_whole_number_refuses_others(value):
    """Lists, fractions, texts, truth values and numbers that are too small are refused by name and value."""
    with pytest.raises(ValueError, match="k must be a whole number from 1 up, not "):
        require_whole_number("k", value)


def test_require_whole_number_accepts_integers():
    """Integers of Python and numpy are accepted from the least on."""
    require_whole_number("k", 1)
    require_whole_number("k", np.int64(0), least=0)
