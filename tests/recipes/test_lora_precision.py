"""recipes/lora: which numbers to compute with, and what is said when that is not what was asked for."""

from __future__ import annotations

import pytest

from lora.precision import Machine, choose
from lora.settings import parse

CPU = Machine(has_cuda=False, computes_bf16=False, has_bitsandbytes=False)
T4 = Machine(has_cuda=True, computes_bf16=False, has_bitsandbytes=True)
H100 = Machine(has_cuda=True, computes_bf16=True, has_bitsandbytes=True)
BARE_H100 = Machine(has_cuda=True, computes_bf16=True, has_bitsandbytes=False)
CPU_WITH = Machine(has_cuda=False, computes_bf16=False, has_bitsandbytes=True)


@pytest.mark.parametrize(
    ("machine", "words", "dtype", "mixed", "is_quantized", "said"),
    [
        (CPU, "", "float32", None, False, ""),
        (T4, "", "float16", "fp16", False, ""),
        (H100, "", "bfloat16", "bf16", False, ""),
        (H100, "--quantization nf4", "bfloat16", "bf16", True, ""),
        (T4, "--quantization nf4", "float16", "fp16", True, ""),
        (BARE_H100, "--quantization nf4", "bfloat16", "bf16", False, "needs bitsandbytes: LoRA without"),
        (CPU_WITH, "--quantization nf4", "float32", None, False, "needs a CUDA GPU: LoRA without"),
        (CPU, "--quantization nf4", "float32", None, False, "needs a CUDA GPU and bitsandbytes"),
        (CPU, "--dtype bfloat16", "bfloat16", "bf16", False, ""),
        (CPU, "--dtype float16", "float32", None, False, "float16 needs a GPU"),
        (T4, "--dtype bfloat16", "float16", "fp16", False, "only imitates bfloat16"),
        (H100, "--dtype float32", "float32", None, False, ""),
    ],
)
def test_precision_follows_the_machine_and_says_what_it_could_not_do(
    machine: Machine, words: str, dtype: str, mixed: str | None, is_quantized: bool, said: str
) -> None:
    choice = choose(parse(words.split()), machine)
    assert (choice.dtype, choice.mixed, choice.is_quantized) == (dtype, mixed, is_quantized)
    assert said in " ".join(choice.said)
    assert bool(choice.said) == bool(said)
