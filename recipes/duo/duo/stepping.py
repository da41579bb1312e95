"""Forward and backward of a batch in as many pieces as memory asks for, with the gradient of the whole batch.

`outlast.train.step` does the splitting; this says to Lightning how. Lightning calls `training_step`, then backward of
what that returned; here both happen in `training_step`, piece by piece, and what it returns needs no backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from outlast.train.split import Known
from outlast.train.step import Splitter, Work

_ADVICE = "loader.batch_size=1 with more trainer.accumulate_grad_batches, a smaller model.length, or a smaller model"


class Pieces:
    """Splits the batches of one training.

    Args:
        module: the LightningModule.
        say: tells the user.
    """

    def __init__(self, module: Any, say: Callable[[str], None]) -> None:
        self._module, self._say = module, say
        self._splitter = Splitter()

    def run(self, batch: Any, mean: Callable[[Any], torch.Tensor], *, opens: bool, closes: bool) -> torch.Tensor:
        """Gradients of a batch's mean loss are added to the parameters'.

        Args:
            batch: tensors whose first dimension is the samples.
            mean: forward of a piece: its mean loss.
            opens: it is the first batch since the optimizer's step.
            closes: the optimizer's step follows.

        Returns:
            The mean loss of the whole, without a graph.
        """
        parameters = self._module.network
        if opens:
            self._splitter.forget_window()
            parameters.zero_grad(set_to_none=True)
        accumulated = self._module.trainer.accumulate_grad_batches

        def go(piece: Any, share: float) -> torch.Tensor:
            loss = mean(piece) * share
            # The strategy's own backward: it scales the loss where precision 16 needs that.
            self._module.trainer.strategy.backward(loss / accumulated, None)
            return loss.detach()

        work = Work(
            go=go,
            undo=lambda: parameters.zero_grad(set_to_none=True),
            weigh=lambda pieces, sizes: tuple(size / sum(sizes) for size in sizes),
            model=parameters,
            tell=self._tell,
            advice=lambda: _ADVICE,
        )
        return self._splitter.run(batch, work, closes=closes)  # type: ignore[no-any-return]

    def as_data(self) -> dict[str, Any]:
        """What was learned of the memory, for a checkpoint."""
        return self._splitter.known.as_data()

    def put(self, data: Any) -> None:
        """What a checkpoint has of it: a resumed run starts with the size that fits."""
        self._splitter.known = Known.from_data(data)

    def _tell(self, event: str, **facts: Any) -> None:
        if "micro_batch" in facts:
            self._say(f"{event.replace('_', ' ')}: {facts['micro_batch']} samples at once, the batch stays as it is")
