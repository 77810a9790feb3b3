"""Algorithm 1 of RecGURU: autoencoders, adversarial game and next item, each a fit of RecBole's Trainer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.utils import set_color
from torch import Tensor

from recbole_xfer.collectives import total
from recbole_xfer.data.batches import CRITIC, DomainPairDataLoader
from recbole_xfer.trainer.phases import PhasedTrainer

AUTOENCODER, ADVERSARIAL, RECOMMENDATION = "autoencoder", "adversarial", "recommendation"
VARIANT_PHASES = {
    "RecGURU": [AUTOENCODER, ADVERSARIAL, RECOMMENDATION],
    "AutoRec": [AUTOENCODER, RECOMMENDATION],
    "SeqRec": [RECOMMENDATION],
}
"""The phases of each variant."""


class RecGURUTrainer(PhasedTrainer):
    """Trains the phases of a variant, with the optimizers of each.

    Losses are means over the steps of an epoch, in the log and in TensorBoard under ``<phase>/<name>``.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self.phases = VARIANT_PHASES[config["variant"]]
        self._losses: dict[str, list[Tensor]] = defaultdict(list)
        self._begin(self.phases[0])

    def _begin(self, phase: str, train_data: Any = None) -> None:
        """Starts a phase: new optimizers, no gradients, epoch 0."""
        super()._begin(phase, train_data)
        self.model.zero_grad()
        prefix = "" if phase == RECOMMENDATION else f"{phase}_"
        self.learning_rate_key = f"{prefix}learning_rate"
        self.epochs, self.learning_rate = self.config[f"{prefix}epochs"], self.config[self.learning_rate_key]
        betas = self.config[f"{prefix}betas"]
        self.optimizer = self._adam(self.model.cdsrec if phase == RECOMMENDATION else self.model.guru, betas)
        if phase == ADVERSARIAL:
            self.critic_optimizer = self._adam(self.model.critic, betas)

    def _adam(self, module: torch.nn.Module, betas: list[float]) -> torch.optim.Optimizer:
        optimizer = self._build_optimizer(params=module.parameters(), learning_rate=self.learning_rate)
        for group in optimizer.param_groups:
            group["betas"] = tuple(betas)
        return optimizer

    # --- phases ------------------------------------------------------------------------------------------------------

    def _end(self, following: str) -> None:
        if following == RECOMMENDATION:
            self.model.begin_recommendation()

    def train_loader(self, train_data: Any) -> Any:
        """The loader of the phase: users of both domains, or windows."""
        if self.phase == RECOMMENDATION:
            return super().train_loader(train_data)
        critic_steps = self.config["critic_steps"] if self.phase == ADVERSARIAL else 0
        dataset, size = train_data._dataset, self.config["user_batch_size"]
        return DomainPairDataLoader(dataset, size, critic_steps, self.config["seed"] + self.phases.index(self.phase))

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        train_data.set_epoch(epoch_idx)
        self._losses.clear()
        self._step = epoch_idx * len(train_data)
        return super()._train_epoch(train_data, epoch_idx, getattr(self, f"_{self.phase}_step"), **kwargs)

    def _set_learning_rate(self, epoch: int) -> None:
        super()._set_learning_rate(epoch)
        if self.phase == ADVERSARIAL:
            decay = self.config["adversarial_learning_rate_decay"]
            for group in (*self.optimizer.param_groups, *self.critic_optimizer.param_groups):
                group["lr"] = self.learning_rate * decay**epoch

    def _autoencoder_step(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """Phase 1, with the learning rate of Vaswani et al. (section 5.3).

        The supplement names only the start (1.0) and the betas, and says that the rate is adjusted.
        """
        self._step += 1
        warm_up = min(self._step**-0.5, self._step * self.config["warmup_steps"] ** -1.5)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * self.config["hidden_size"] ** -0.5 * warm_up
        return self._record(self.model.autoencoder_losses(interaction))

    def _adversarial_step(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """Phase 2: the steps of the critic, then the losses of the encoder's step with a fixed critic."""
        with torch.no_grad():
            users = self.model.guru.represent_domains(interaction[CRITIC].transpose(0, 1).flatten(1, 2))  # [D, K B, d]
        torch.clear_autocast_cache()  # or older torch would reuse weights without gradient in the encoder's step
        with torch.autocast(self.device.type, enabled=False):  # the gradient of a gradient needs full precision
            for a, b in zip(*(domain.chunk(len(interaction[CRITIC])) for domain in users), strict=True):
                self.train_critic(a, b)
        self.critic_optimizer.zero_grad()  # gradient clipping would include the critic's last gradient
        self.model.critic.requires_grad_(False)
        return self._record(self.model.encoder_losses(interaction))

    def train_critic(self, a: Tensor, b: Tensor) -> None:
        """One step of the critic on user representations h of the two domains, [B, d] each."""
        self.model.critic.requires_grad_(True)
        losses = self.model.critic_losses(a, b)
        self.critic_optimizer.zero_grad()
        losses["critic loss"].backward()
        self.critic_optimizer.step()
        self._record(losses)

    def _recommendation_step(self, interaction: Interaction) -> Tensor:
        """Phase 3."""
        return self._record({"next item": self.model.calculate_loss(interaction)})[0]

    # --- the log -----------------------------------------------------------------------------------------------------

    def _record(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        for name, value in losses.items():
            self._losses[name].append(value.detach())
        return tuple(losses.values())

    def _scalars(self, *_: Any) -> dict[str, float]:
        """The losses of the epoch, means over its steps."""
        return {name: float(total(torch.stack(values).mean())) for name, values in self._losses.items()}

    def _generate_train_loss_output(self, epoch_idx: int, s_time: float, e_time: float, losses: Any) -> str:
        values = ", ".join(
            f"{set_color(name, 'blue')}: {value:.4f}" for name, value in self.history[-1]["train"].items()
        )
        return f"{set_color(f'{self.phase} epoch {epoch_idx} training', 'green')} [{e_time - s_time:.2f}s, {values}]"

    def _add_train_loss_to_tensorboard(self, *_: Any) -> None:
        """They are in TensorBoard already, by name."""

    def _add_hparam_to_tensorboard(self, best_valid_result: float) -> None:
        if self.phase == RECOMMENDATION:
            super()._add_hparam_to_tensorboard(best_valid_result)

    # --- resuming ----------------------------------------------------------------------------------------------------

    def _state(self, epoch: int) -> dict[str, Any]:
        critic = self.critic_optimizer.state_dict() if self.phase == ADVERSARIAL else None
        return super()._state(epoch) | {"critic_optimizer": critic}

    def _restore(self, state: Mapping[str, Any], train_data: Any) -> None:
        super()._restore(state, train_data)
        if self.phase == ADVERSARIAL:
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])
