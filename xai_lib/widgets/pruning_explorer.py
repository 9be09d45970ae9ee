import ipywidgets

from .. import plots, pruning
from .panel import Panel


class PruningExplorer(Panel):
    """How many neurons to prune, by slider: what each class loses, by `plots.class_recalls`.

    `compared` are results of `pruning.compare` by how the neurons were chosen.
    """

    def __init__(self, compared, forgotten):
        self.recalls = {name: pruning.recalls(result) for name, result in compared.items()}
        self.forgotten = forgotten
        first = next(iter(self.recalls))
        doses = self.recalls[first]["dose"].values.tolist()
        controls = {
            "neurons": ipywidgets.SelectionSlider(options=doses, value=doses[-1], description="neurons pruned"),
            "chosen": ipywidgets.Dropdown(options=list(self.recalls), value=first, description="chosen by"),
        }
        super().__init__(f"Making the model forget {forgotten}", controls)

    def draw(self, neurons, chosen):
        return plots.class_recalls(self.recalls[chosen], neurons, forgotten=self.forgotten)
