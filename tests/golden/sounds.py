"""Section: the bundled AST on made-up sounds, whose clips have whole recordings in place of speakers."""

import numpy as np

from xai_lib import ablation, activations, attribution, choosing, dissection, pruning

from . import inputs

TARGET = "rain"


def ast():
    """What a model of patches gives and chooses."""
    model, sounds = inputs.pocket_ast(), inputs.sounds()
    train = sounds[sounds["speaker"].isin(["recording-0", "recording-1"])]
    test = sounds.drop(index=train.index)
    moments = activations.moments(model, train)
    scores = attribution.grad_x_activation(model, train, target=TARGET, scale="log_odds")
    inside = activations.activations(model, sounds, [(2, "ffn_hidden"), (4, "ffn_hidden")], batch=4)
    lift = choosing.contrast(inside["activation"].isel(clip=np.isin(inside["clip"], train.index)), TARGET)
    options = {"target": TARGET, "scale": "log_odds", "batch": 16}
    return {
        "predict": model.predict(sounds),
        "activations": inside,
        "class_tokens": activations.activations(model, test, "block", pool="cls"),
        "moments": moments,
        "grad_x_activation": scores,
        "integrated_gradients": attribution.integrated_gradients(model, test.head(2), layers=[2], steps=4, **options),
        "exhaustive_ablation": attribution.exhaustive_ablation(
            model, test.head(2), target=TARGET, mode="noise", moments=moments, layers=[4], batch=64
        ),
        "sweep": ablation.sweep(
            model, test.head(3), neurons=scores, k=4, layers=[1, 3], modes=["flip", "noise"], nulls=2, moments=moments,
            target=TARGET, batch=32,
        ),
        "selectivity": dissection.selectivity(inside["activation"].isel(neuron=slice(0, 60))),
        "compare": pruning.compare(model, test, lift, inside["magnitude"], doses=[30], draws=2, chosen_on=train, batch=32),
        "neurons": inputs.neurons(choosing.neurons_of(lift, 30)),
    }  # fmt: skip
