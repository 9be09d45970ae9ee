"""Sections on made-up sounds: the bundled AST, files and folders, a module of one's own."""

import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from xai_lib import ablation, activations, attribution, corpora, dissection, edits, execution, hooks, models, pruning
from xai_lib.activations import caching
from xai_lib.dissection.descriptions import vocabulary
from xai_lib.models import sites
from xai_lib.pruning import neuron_selection
from xai_lib.workbook import inputs as sides

from . import inputs
from .neuron_sets import by_prefix

TARGET = "rain"


def ast():
    """What a model of patches gives and chooses."""
    model, sounds = inputs.pocket_ast(), inputs.sounds()
    train = sounds[sounds["speaker"].isin(["recording-0", "recording-1"])]
    test = sounds.drop(index=train.index)
    activation_stats = activations.activation_stats(model, train)
    scores = attribution.grad_x_activation(model, train, target=TARGET, scale="log_odds")
    inside = activations.activations(model, sounds, [(2, "ffn_hidden"), (4, "ffn_hidden")], batch=4)
    lift = neuron_selection.contrast(inside["activation"].isel(clip=np.isin(inside["clip"], train.index)), TARGET)
    options = {"target": TARGET, "scale": "log_odds", "batch": 16}
    return {
        "predict": model.predict(sounds),
        "activations": inside,
        "class_tokens": activations.activations(model, test, "hidden_state", pool="cls"),
        "activation_stats": activation_stats,
        "grad_x_activation": scores,
        "integrated_gradients": attribution.integrated_gradients(model, test.head(2), layers=[2], steps=4, **options),
        "exhaustive_ablation": attribution.exhaustive_ablation(
            model, test.head(2), target=TARGET, mode="noise", activation_stats=activation_stats, layers=[4], batch=64
        ),
        "sweep": by_prefix(ablation.sweep(
            model, test.head(3), ablation.select(scores, 4, layers=[1, 3]), target=TARGET, batch=32,
            edit=ablation.Edit(["flip", "noise"], activation_stats=activation_stats),
            controls=ablation.RandomControls(activation_stats, n=2),
        )),
        "selectivity": dissection.selectivity(inside["activation"].isel(neuron=slice(0, 60))),
        "compare": pruning.compare(model, test, lift, inside["magnitude"], doses=[30], draws=2, selection_clips=train, batch=32),
        "neurons": inputs.neurons(neuron_selection.neurons_of(lift, 30)),
    }  # fmt: skip


def files():
    """Clips of folders, tables and files; results that go through files; prompts."""
    model, some = inputs.pocket_ast(), inputs.sounds().head(3)
    options = {"target": TARGET, "scale": "log_odds", "layers": [2]}
    plan = {sites.Site(2, "ffn_hidden"): np.arange(40)}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for place, sound in enumerate(inputs.sounds()["audio"].head(3)):
            (folder / f"0{place} - kind {place}").mkdir()
            soundfile.write(folder / f"0{place} - kind {place}" / f"one_{place}.wav", samples(sound), 16000)
        listed = "file,emotion,speaker\n00 - kind 0/one_0.wav,joy,A \n01 - kind 1/one_1.wav,fear,a\n"
        (folder / "table.csv").write_text(listed)
        table = corpora.from_csv(folder / "table.csv", path_column="file", label_column="emotion")
        pattern = r"kind (?P<speaker>\d)/(?P<label>\w+)_"
        kept = activations.activations(model, some, [(2, "ffn_out")], file=folder / "rows.nc").load()
        pruning.save(model, plan, folder / "pruned")
        pruned = models.load(folder / "pruned", device="cpu")
        return {
            "from_folder": corpora.from_folder(folder),
            "from_folder_by_pattern": corpora.from_folder(folder, pattern),
            "from_csv": table,
            "relabelled": corpora.relabel(table, {"joy": "happy"}),
            "own_files": sides.own_files(str(folder / "*" / "*.wav"), model, {}),
            "activations": kept,
            "by_clip": caching.by_clip(attribution.gradient, model, some, folder=folder / "kept", **options),
            "pruned": pruned.predict(some),
            "prompt": vocabulary.prompt("yes_no", question="Is it loud?"),
            "shown": vocabulary.escape_html("<b>loud</b>", max_length=6),
        }


def samples(sound):
    """The numbers of a sound in memory."""
    return np.asarray(getattr(sound, "samples", sound), np.float32)


def opened():
    """Forwards that are edited, and a module of one's own."""
    model, waveform = inputs.pocket_ast(), np.sin(np.arange(16000) / 9).astype(np.float32)
    plan = [{sites.Site(1): edits.edit([3, 4], "flip")}, {sites.Site(3, "ffn_hidden"): edits.edit([0, 500], "zero")}]
    with hooks.edit(model, plan[0]), hooks.capture(model, [sites.Site(2)]) as seen:
        alone = model.logits(model.tensor(waveform))
    module = torch.nn.Sequential(torch.nn.Linear(400, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    rng = np.random.default_rng(3)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.as_tensor(0.1 * rng.standard_normal(weight.shape)))
    wrapped = models.wrap(
        module.eval(),
        sites={(1, "ffn_hidden"): "1"},
        sample_rate=16000,
        preprocess=lambda waves: waves.unfold(1, 400, 320),
        labels=["a", "b", "c"],
        read=lambda output: output.mean(dim=1),
        name="own",
        device="cpu",
    )
    some = inputs.sounds().head(3)
    return {
        "cascade": execution.cascade(model, waveform, plan, batch=2).numpy(),
        "hooked": alone.numpy(),
        "captured": seen[sites.Site(2)][0, :20, :20].numpy(),
        "predict": wrapped.predict(some),
        "activations": activations.activations(wrapped, some, "ffn_hidden", frames="all"),
        "grad_x_activation": attribution.grad_x_activation(wrapped, some, target="b", part="ffn_hidden"),
    }
