from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import xarray as xr
from matplotlib.figure import Figure

from .. import plots
from ..pruning import forgetting
from .panel import Panel


class PruningExplorer(Panel):
    """Explorer of pruning: the loss of each class by number of neurons pruned, selection and measure.

    `compared` is {selection: result of `pruning.compare`}; figures are `plots.class_recalls` and `plots.class_changes`.
    """

    def __init__(self, compared: Mapping[str, xr.Dataset], forgotten: str):
        self.compared = dict(compared)
        self.forgotten = forgotten
        first_name = next(iter(self.compared))
        doses = self.compared[first_name]["dose"].values.tolist()
        controls = {
            "neurons": ipywidgets.SelectionSlider(options=doses, value=doses[-1], description="neurons pruned"),
            "selection": ipywidgets.Dropdown(options=list(self.compared), value=first_name, description="selected by"),
            "measure": ipywidgets.Dropdown(
                options=["recall", "logit", "probability"], value="recall", description="show"
            ),
        }
        super().__init__(f"Making the model forget {forgotten}", controls)

    def draw(self, neurons: int, selection: str, measure: str) -> Figure:
        """Return the figure of recalls, or of changes of another measure, for this number of neurons."""
        compared = self.compared[selection]
        if measure == "recall":
            return plots.class_recalls(forgetting.recalls(compared), neurons, forgotten=self.forgotten)
        return plots.class_changes(compared, neurons, forgotten=self.forgotten, measure=measure)
