"""The phases of RecGURU's training: what they log, what they train, and how they resume."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.quick_start import run_recbole

from recbole_xfer.experiment import fit
from recbole_xfer.testing.contract import Interrupted
from recbole_xfer.testing.data import settings
from recbole_xfer.trainer.recguru import ADVERSARIAL, AUTOENCODER, RECOMMENDATION
from tests.helpers.recguru import batch_of, experiment


def test_each_phase_logs_its_losses_and_trains_only_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = experiment(tmp_path, autoencoder_epochs=2, adversarial_epochs=1, epochs=1)
    model, trainer = made.model, made.trainer
    scalars: list[str] = []
    monkeypatch.setattr(trainer.tensorboard, "add_scalar", lambda name, *rest: scalars.append(name))
    copies = []
    begin = trainer._begin

    def watch(phase: str, *rest: Any) -> None:
        copies.append({name: value.clone() for name, value in model.state_dict().items()})
        begin(phase, *rest)

    monkeypatch.setattr(trainer, "_begin", watch)
    watch(AUTOENCODER)
    with caplog.at_level("INFO"):
        fit(made)
    copies.append(model.state_dict())
    changed = [
        {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        for before, after in pairwise(copies)
    ]
    assert changed == [{"guru"}, {"guru", "critic", "cdsrec"}, {"cdsrec"}]  # cdsrec takes the embeddings over
    assert torch.equal(copies[2]["cdsrec.embed.items.weight"], copies[2]["guru.embed.items.weight"])
    assert [name for name in scalars if name.startswith(f"{AUTOENCODER}/")] == [
        f"{AUTOENCODER}/reconstruction/Small", f"{AUTOENCODER}/reconstruction/Other",
    ] * 2  # fmt: skip
    assert f"{ADVERSARIAL}/Wasserstein distance" in scalars and f"{RECOMMENDATION}/next item" in scalars
    assert "autoencoder epoch 1 training" in caplog.text and "Wasserstein distance" in caplog.text


def test_the_first_phase_warms_up(tmp_path: Path) -> None:
    made = experiment(tmp_path, warmup_steps=4)
    trainer, rates = made.trainer, []
    trainer._step = 0
    for _ in range(8):
        trainer._autoencoder_step(batch_of(made, 0))
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    expected = [16**-0.5 * min(step**-0.5, step * 4**-1.5) for step in range(1, 9)]
    assert rates == pytest.approx(expected)
    assert int(np.argmax(rates)) == 3


@pytest.mark.parametrize("phase", [AUTOENCODER, ADVERSARIAL])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_run_killed_in_any_phase_is_resumed_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, epoch: int
) -> None:
    keys = {"autoencoder_epochs": 2, "adversarial_epochs": 2, "epochs": 2, "n_layers": 1}
    expected = fit(experiment(tmp_path, run_dir=str(tmp_path / "whole"), **keys))
    broken = experiment(tmp_path, run_dir=str(tmp_path / "broken"), **keys)
    losses = {AUTOENCODER: "autoencoder_losses", ADVERSARIAL: "encoder_losses"}[phase]
    original = getattr(broken.model, losses)

    def dies(interaction: Interaction) -> Any:
        if broken.trainer.train_loss_dict.keys() >= set(range(epoch)) and len(broken.trainer._losses) > 1:
            raise Interrupted  # after the epoch's first step, in the game after the critic's
        return original(interaction)

    monkeypatch.setattr(broken.model, losses, dies)
    with pytest.raises(Interrupted):
        fit(broken)
    resumed = experiment(tmp_path, run_dir=str(tmp_path / "broken"), **keys)
    assert fit(resumed) == expected
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


def test_a_killed_run_resumes_in_its_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"autoencoder_epochs": 1, "adversarial_epochs": 3, "epochs": 1, "run_dir": str(tmp_path / "run")}
    made = experiment(tmp_path, **keys)

    def dies(*arguments: Any) -> None:
        if made.trainer.train_loss_dict.keys() >= {0, 1}:
            raise Interrupted

    monkeypatch.setattr(made.trainer, "_save_state", _then(made.trainer._save_state, dies))
    with pytest.raises(Interrupted):
        fit(made)
    again = experiment(tmp_path, **keys)
    assert again.trainer.resume(again.train_data)
    assert (again.trainer.phase, again.trainer.start_epoch) == (ADVERSARIAL, 2)
    assert again.trainer.critic_optimizer.state_dict()["state"]


def test_clipping_ignores_gradients_of_other_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiment(tmp_path, autoencoder_epochs=1, adversarial_epochs=1, epochs=1, clip_grad_norm={"max_norm": 1})
    clipped: dict[str, set[str]] = {AUTOENCODER: set(), ADVERSARIAL: set(), RECOMMENDATION: set()}

    def note(parameters: Any, max_norm: float) -> None:
        names = {name.split(".")[0] for name, value in made.model.named_parameters() if value.grad is not None}
        clipped[made.trainer.phase] |= names

    monkeypatch.setattr("recbole.trainer.trainer.clip_grad_norm_", note)
    fit(made)
    assert clipped == {AUTOENCODER: {"guru"}, ADVERSARIAL: {"guru"}, RECOMMENDATION: {"cdsrec"}}


def test_in_bfloat16_the_game_has_a_gradient_for_every_weight_of_the_encoder(tmp_path: Path) -> None:
    """Older torch keeps the weights that it cast without gradient for the critic, and takes them for the encoder."""
    made = experiment(tmp_path, autoencoder_epochs=0, adversarial_epochs=1, epochs=1, precision="bf16")
    trainer = made.trainer
    trainer._begin(ADVERSARIAL)
    batch = next(iter(trainer.train_loader(made.train_data)))
    with torch.autocast("cpu", torch.bfloat16):
        losses = trainer._adversarial_step(batch)
    sum(losses).backward()
    assert not [name for name, value in made.model.guru.encoder.named_parameters() if value.grad is None]


def _then(first: Any, second: Any) -> Any:
    def both(*arguments: Any) -> None:
        first(*arguments)
        second(*arguments)

    return both


def test_reduced_precision_and_recboles_own_run(tmp_path: Path) -> None:
    keys = {"autoencoder_epochs": 1, "adversarial_epochs": 1, "epochs": 1, "n_layers": 1}
    assert np.isfinite(fit(experiment(tmp_path, precision="bf16", **keys))[0])
    result = run_recbole("RecGURU", "Small+Other", config_dict={**settings(tmp_path, "RecGURU"), **keys})
    assert 0 <= result["test_result"]["ndcg@10"] <= 1
