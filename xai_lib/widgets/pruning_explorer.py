import ipywidgets

from .. import plots
from ..pruning import forgetting
from .panel import Panel


class PruningExplorer(Panel):
    """How many neurons to prune, by slider: what each class loses, by `plots.class_recalls` or `plots.class_changes`.

    `compared` are results of `pruning.compare` by how the neurons were chosen.
    """

    def __init__(self, compared, forgotten):
        self.compared, self.forgotten = dict(compared), forgotten
        first = next(iter(self.compared))
        doses = self.compared[first]["dose"].values.tolist()
        controls = {
            "neurons": ipywidgets.SelectionSlider(options=doses, value=doses[-1], description="neurons pruned"),
            "chosen": ipywidgets.Dropdown(options=list(self.compared), value=first, description="chosen by"),
            "measure": ipywidgets.Dropdown(
                options=["recall", "logit", "probability"], value="recall", description="show"
            ),
        }
        super().__init__(f"Making the model forget {forgotten}", controls)

    def draw(self, neurons, chosen, measure):
        compared = self.compared[chosen]
        if measure == "recall":
            return plots.class_recalls(forgetting.recalls(compared), neurons, forgotten=self.forgotten)
        return plots.class_changes(compared, neurons, forgotten=self.forgotten, measure=measure)
