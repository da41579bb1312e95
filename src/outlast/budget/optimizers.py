"""Optimizers by name, as a prediction runs them. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch


class EightBitAdamW(torch.optim.Optimizer):  # type: ignore[misc]
    """What bitsandbytes' AdamW8bit holds, without its arithmetic: for predictions only.

    Two bytes a weight and two float32 for each 256 weights; parameters of less than 4,096 weights have float32 moments
    (``bitsandbytes/optim/optimizer.py``: min_8bit_size, blocksize). The update works in place.
    """

    def __init__(self, params: Iterable[torch.Tensor]) -> None:
        super().__init__(params, {})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """Make the state that is not there yet."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or self.state[parameter]:
                    continue
                small = parameter.numel() < 4096
                for moment in ("1", "2"):
                    dtype = torch.float32 if small else torch.uint8
                    self.state[parameter][f"state{moment}"] = torch.zeros_like(parameter, dtype=dtype)
                    if not small:
                        self.state[parameter][f"absmax{moment}"] = parameter.new_zeros(
                            (-(-parameter.numel() // 256),), dtype=torch.float32
                        )


OPTIMIZERS: Mapping[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda params: torch.optim.AdamW(params, fused=True),
    "adamw-foreach": lambda params: torch.optim.AdamW(params, foreach=True),
    "adamw-8bit": EightBitAdamW,
    "adafactor": lambda params: torch.optim.Adafactor(params, foreach=False),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, foreach=False),
}
"""``adamw`` is the Trainer's default (``adamw_torch_fused``); ``adamw-foreach`` is torch's own on a GPU: its step holds
one more float32 copy of the weights. ``sgd`` is without momentum."""
