"""The loop that trains the bundled models: killed, it goes on to the same weights; shared, it takes the same steps."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "data" / "recipes"))

import training


def fit(checkpoint, *, epochs=3, kill=None, scores=None, start=0, **options):
    """Train a tiny network with dropout on noise; `kill` is the step at which it is killed."""
    torch.manual_seed(start)
    module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 2))
    seen = []

    def loss(module, batch):
        seen.append(batch)
        if len(seen) == kill:
            raise KeyboardInterrupt
        return (module(torch.from_numpy(batch)) - 1).square().mean(), {"size": len(batch)}

    said = iter(scores or [])
    history = training.fit(
        module,
        lambda rng: (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(5)),
        loss,
        steps=5,
        epochs=epochs,
        learning_rate=0.05,
        weight_decay=0.01,
        average=0.8,
        checkpoint=checkpoint,
        settings={"sizes": (3, 8, 2)},
        after=(lambda module: {"score": next(said)}) if scores else None,
        best="score" if scores else None,
        **options,
    )
    return module, history


def same(one, other):
    return all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_fit_resumes_to_same_weights(tmp_path):
    """A training that is killed and resumed ends at the weights and the curve of an uninterrupted one."""
    straight, history = fit(tmp_path / "straight.pt")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed.pt", kill=8)  # in the second of three epochs
    resumed, again = fit(tmp_path / "killed.pt")
    assert same(straight, resumed)
    assert again.curve == history.curve and len(again.curve) == again.epoch == 3
    assert all(row["size"] == pytest.approx(4) for row in again.curve)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.pt", "straight.pt"]
    finished, _ = fit(tmp_path / "killed.pt", kill=1)  # nothing is left to do
    assert same(finished, straight)


def test_fit_depends_on_seed(tmp_path):
    """Trainings with different seeds end at different weights."""
    assert not same(fit(tmp_path / "0.pt")[0], fit(tmp_path / "1.pt", seed=1)[0])


def test_fit_keeps_best_epoch(tmp_path):
    """`fit` keeps the averaged weights of the best epoch, the later of equals, also when resumed."""
    selected, history = fit(tmp_path / "chosen.pt", scores=[0.2, 0.7, 0.7, 0.1], epochs=4)
    assert history.epoch == 3 and [row["score"] for row in history.curve] == [0.2, 0.7, 0.7, 0.1]
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed.pt", epochs=4, kill=16, scores=[0.2, 0.7, 0.7])
    at_three = torch.load(tmp_path / "killed.pt", weights_only=True)["average"]
    assert all(torch.equal(value, at_three[name]) for name, value in selected.state_dict().items())
    resumed, history = fit(tmp_path / "killed.pt", epochs=4, scores=[0.1])
    assert history.epoch == 3 and same(resumed, selected)


def test_fit_refuses_other_settings(tmp_path):
    """`fit` refuses a checkpoint of other settings or another seed, and names both values."""
    fit(tmp_path / "training.pt")
    with pytest.raises(ValueError, match="other settings.*epochs 3, now 4"):
        fit(tmp_path / "training.pt", epochs=4)
    with pytest.raises(ValueError, match="seed 0, now 1"):
        fit(tmp_path / "training.pt", seed=1)


def share(rank, ranks, folder):
    """What a process of a shared training does: its part of each batch, and its weights in the end."""
    if ranks > 1:
        place = f"file://{folder}/meet"
        distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=ranks)
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    everything = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    training.fit(
        module,
        lambda rng: iter(everything[:, rank::ranks]),
        lambda module, batch: ((module(torch.from_numpy(batch)) - 1).square().mean(), {}),
        steps=6,
        epochs=2,
        learning_rate=0.05,
        weight_decay=0.01,
        average=0.8,
        checkpoint=Path(folder) / f"{ranks}.pt",
        settings={},
    )
    torch.save(module.state_dict(), Path(folder) / f"{rank}-of-{ranks}.pt")
    if ranks > 1:
        distributed.destroy_process_group()


@pytest.mark.full
def test_fit_processes_equal_single_process(tmp_path):
    """Two processes that share each batch end at equal weights, which are those of a single process."""
    torch.multiprocessing.spawn(share, (2, tmp_path), nprocs=2)
    share(0, 1, tmp_path)
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    for name in alone:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name], atol=1e-6, rtol=1e-5)


def test_fit_refuses_other_initial_weights(tmp_path):
    """`fit` refuses a checkpoint of a training that began with other weights."""
    fit(tmp_path / "done.pt")
    with pytest.raises(ValueError, match="begins_with"):
        fit(tmp_path / "done.pt", start=1)
