"""The mean of past weights, which evaluation uses: steadier than the weights of the last step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from outlast.errors import BadInput


class Ema:
    """Exponential moving average of parameters: mean = decay mean + (1 - decay) parameter, after each step.

    Args:
        parameters: those of the model, in a fixed order.
        decay: from 0 to below 1.
        warmup: the n-th update takes at most decay (1 + n) / (10 + n): the mean of a short run is not its random start.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float, *, warmup: bool = True) -> None:
        if not 0.0 <= decay < 1.0:
            raise BadInput(f"decay of the mean of weights is {decay}", hint="from 0 to below 1: training.ema=0.9999")
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._means = [parameter.detach().clone() for parameter in self._parameters]
        self._swapped = False
        self.decay, self.warmup, self.updates = decay, warmup, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now: once after each step of the optimizer."""
        self._refuse_swapped("update")
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        self._follow()
        torch._foreach_lerp_(self._means, [parameter.detach() for parameter in self._parameters], 1.0 - decay)

    def swap(self) -> None:
        """Put the means into the model, or back out of it: no memory is taken, only pointers change places."""
        self._follow()
        for index, parameter in enumerate(self._parameters):
            parameter.data, self._means[index] = self._means[index], parameter.data
        self._swapped = not self._swapped

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """While inside, the model has the means as its weights."""
        self._refuse_swapped("swapped")
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep; not a copy."""
        self._refuse_swapped("state_dict")
        return {"decay": self.decay, "updates": self.updates, "means": list(self._means)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. The decay stays what this run was given.

        Raises:
            BadInput: when it is of another model; nothing was changed then.
        """
        self._refuse_swapped("load_state_dict")
        means = state["means"]
        here, there = ([tuple(mean.shape) for mean in each] for each in (self._means, means))
        if here != there:
            raise BadInput(
                f"the saved mean of weights is of another model: {len(there)} tensors, this one has {len(here)}"
                + ("" if len(here) != len(there) else ", of other shapes"),
                hint="use the model's size and vocabulary that the checkpoint was made with",
            )
        with torch.no_grad():
            for mine, mean in zip(self._means, means, strict=True):
                mine.copy_(mean)
        self.updates = int(state["updates"])

    def _follow(self) -> None:
        """The means live where the parameters do, also after these moved to a GPU."""
        for index, parameter in enumerate(self._parameters):
            if self._means[index].device != parameter.device:
                self._means[index] = self._means[index].to(parameter.device)

    def _refuse_swapped(self, what: str) -> None:
        if self._swapped:
            # A checkpoint of this moment would take the means for the weights.
            raise RuntimeError(f"Ema.{what} while the model has the means as its weights; swap back first")
