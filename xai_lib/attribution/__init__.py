"""Attribution of the model's decision to neurons, and of each neuron's activation to parts of the input.

Every method scores all neurons of all layers at once, `signed` and `absolute`; `ranking` ranks and compares scores."""

from .class_contrast import activation_contrast, compare, distribution
from .gradients import grad_x_activation, gradient, integrated_gradients
from .gradientshap import gradient_shap
from .occlusion import segment_response
from .ranking import agreement, compare_methods, mean_score, top_neurons
from .single_neuron import exhaustive_ablation

__all__ = [
    "activation_contrast",
    "agreement",
    "compare",
    "distribution",
    "exhaustive_ablation",
    "grad_x_activation",
    "gradient",
    "gradient_shap",
    "integrated_gradients",
    "mean_score",
    "compare_methods",
    "segment_response",
    "top_neurons",
]
