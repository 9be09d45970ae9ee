"""Which neurons drive the model towards a class, and what part of the input drives each neuron.

Every method answers for all neurons of all layers at once, with `signed` and `absolute` scores, which `ranking` ranks and
compares."""

from .class_contrast import activation_contrast, compare, distribution
from .gradients import grad_x_activation, gradient, integrated_gradients
from .gradientshap import gradient_shap
from .occlusion import segment_response
from .ranking import agreement, chosen, mean_score, methods, top_neurons
from .single_neuron import exhaustive_ablation

__all__ = [
    "activation_contrast",
    "agreement",
    "chosen",
    "compare",
    "distribution",
    "exhaustive_ablation",
    "grad_x_activation",
    "gradient",
    "gradient_shap",
    "integrated_gradients",
    "mean_score",
    "methods",
    "segment_response",
    "top_neurons",
]
