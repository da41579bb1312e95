"""The training step, as Lightning wants it: loss, validation with the mean weights, and what a checkpoint carries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from duo import loss, noise, samples
from duo.batches import Order, Stream, mixed
from duo.dit import DiT
from duo.ema import Ema
from duo.said import say
from duo.settings import Model, Settings, Training
from duo.stepping import Pieces
from duo.text import Text

CARRIED = "duo"
"""What the program adds to a checkpoint is under this key."""


class Diffusion(pl.LightningModule):
    """A uniform-state diffusion language model in training.

    Times, noise and dropout of a batch follow from the seed, the number of the batch and the rank alone. So a resumed
    run draws what the uninterrupted one drew, and no random generator has to be in a checkpoint.

    Args:
        settings: what the program was told.
        network: the model.
        text: its blocks and tokenizer; a checkpoint carries the tokenizer, so that it can be used away from its run.
    """

    def __init__(self, settings: Settings, network: DiT, text: Text) -> None:
        super().__init__()
        self.settings, self.network, self.text = settings, network, text
        self.ema = Ema(network.parameters(), settings.training.ema) if settings.training.ema else None
        self.pieces = Pieces(self, say)

    # Training

    def train_dataloader(self) -> Stream:
        """Batches from where the training is."""
        asked = self.settings.loader
        order = Order(
            len(self.text.blocks["train"]),
            asked.batch_size,
            self.settings.seed,
            self.global_rank,
            self.trainer.world_size,
        )
        total = self.settings.trainer.max_steps * self.settings.trainer.accumulate_grad_batches
        # One more than is needed: the training ends by its steps, never by the end of an epoch, so that a longer
        # trainer.max_steps later finds an epoch that goes on.
        return Stream(self.text.blocks["train"], order, total + 1, asked.num_workers)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        """Mean loss of a batch, nats a token."""
        torch.manual_seed(mixed(self.settings.seed, "train", index, self.global_rank))
        noisy = corrupted(batch, self.network.vocab, self.settings.training)

        def mean(piece: Noisy) -> torch.Tensor:
            return nats_of(self.network, piece, self.settings.training).mean()

        if self.trainer.world_size > 1:
            value = mean(noisy)  # DistributedDataParallel wants one backward a forward
        else:
            inside = index % self.trainer.accumulate_grad_batches
            closes = inside + 1 == self.trainer.accumulate_grad_batches
            value = self.pieces.run(noisy, mean, opens=inside == 0, closes=closes)
        self.log("train/nll", value.detach())
        return value

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Nothing where it was done in pieces."""
        if loss.requires_grad:
            loss.backward(*args, **kwargs)

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Lightning does this after the forward, which has left its gradients by then where it ran in pieces."""
        if self.trainer.world_size > 1:
            super().optimizer_zero_grad(*args, **kwargs)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The step, and then the mean of the weights."""
        super().optimizer_step(*args, **kwargs)
        if self.ema:
            self.ema.update()

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with a linear warm-up, then a constant rate."""
        asked = self.settings.optim
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=asked.lr,
            betas=(asked.beta1, asked.beta2),
            eps=asked.eps,
            weight_decay=asked.weight_decay,
        )
        warm = warmup_steps(self.settings)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warm))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Validation

    def val_dataloader(self) -> Any:
        """Blocks of the validation split in order, a rank its own part."""
        return validation_loader(
            self.text.blocks["validation"], self.settings, self.global_rank, self.trainer.world_size
        )

    def on_validation_epoch_start(self) -> None:
        """The mean weights are the ones that are judged."""
        if self.ema:
            self.ema.swap()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        """Loss of a batch; each validation draws the same times and noise, so that its figures can be compared."""
        generator = validation_generator(self.settings.seed, index, self.global_rank, batch.device)
        noisy = corrupted(batch, self.network.vocab, self.settings.training, generator)
        mean = nats_of(self.network, noisy, self.settings.training).mean()
        self.log("val/nll", mean, on_epoch=True, batch_size=len(batch), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Back to the weights in training: a ModelCheckpoint saves right after this."""
        if self.settings.eval.generate_samples and self.trainer.is_global_zero:
            self._write_samples()
        if self.ema:
            self.ema.swap()

    def _write_samples(self) -> None:
        step = self.trainer.global_step
        name = Path(self.settings.checkpointing.save_dir) / f"samples-step={step}.json"
        samples.write(name, self.network, self.text.tokenizer, self.settings, self.device, {"step": step})

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What evaluation needs beside the weights."""
        checkpoint[CARRIED] = {
            "model": asdict(self.settings.model),
            "vocab": self.network.vocab,
            "tokenizer": self.text.tokenizer.to_str(),
            "text": {"asked": self.settings.data.source, "used": self.text.source},
            "ema": self.ema.state_dict() if self.ema else None,
            "memory": self.pieces.as_data(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The mean of the weights goes on; a run that had none starts one from its present weights."""
        carried = checkpoint.get(CARRIED, {})
        if self.ema and carried.get("ema"):
            self.ema.load_state_dict(carried["ema"])
        self.pieces.put(carried.get("memory"))


@dataclass(frozen=True, slots=True)
class Noisy:
    """A batch with its noise; samples are the first dimension of each."""

    x: torch.Tensor
    """Clean tokens."""
    z: torch.Tensor
    """Noisy ones."""
    t: torch.Tensor
    """Times."""


def corrupted(x: torch.Tensor, vocab: int, asked: Training, generator: torch.Generator | None = None) -> Noisy:
    """A batch at times and with noise that are drawn here."""
    t = noise.draw_times(
        len(x), generator=generator, antithetic=asked.antithetic_sampling, eps=asked.sampling_eps, device=x.device
    )
    return Noisy(x, noise.corrupt(x, noise.alpha(t), vocab, generator=generator), t)


def nats_of(network: DiT, noisy: Noisy, asked: Training) -> torch.Tensor:
    """Loss of each token, nats, (batch, length)."""
    told = network.projection(noisy.z, noise.sigma(noisy.t))
    return loss.token_loss(told, noisy.x, noisy.z, noisy.t, network.vocab, precision=asked.loss_precision)


def warmup_steps(settings: Settings) -> int:
    """Steps until the learning rate is what was asked for, at least 1."""
    asked, last = settings.optim.warmup_steps, settings.trainer.max_steps
    return max(1, min(2500, last // 10) if asked is None else asked)


def network(model: Model, vocab: int) -> DiT:
    """A network of that size with random weights."""
    return DiT(
        vocab,
        model.hidden_size,
        model.n_blocks,
        model.n_heads,
        model.cond_dim,
        model.length,
        model.dropout,
        model.attention,
    )


def validation_loader(blocks: Any, settings: Settings, rank: int = 0, world: int = 1) -> Any:
    """Batches of the validation split in order; of several ranks each has every so-manieth block."""
    part = torch.utils.data.Subset(blocks, range(rank, len(blocks), world))
    return torch.utils.data.DataLoader(part, batch_size=settings.loader.eval_batch_size)


def validation_generator(seed: int, index: int, rank: int, device: torch.device) -> torch.Generator:
    """The random numbers of a batch of validation."""
    return torch.Generator(device).manual_seed(mixed(seed, "validation", index, rank))
