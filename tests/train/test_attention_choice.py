"""Which implementation is taken here, and for which GPU; for modules of one's own and for Transformers models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import python
from tests.train import fake_flash
from tests.train.fake_flash import installed

from outlast.errors import BadInput
from outlast.train.attention import choose_attention, choose_for_transformers

ASK = """
import sys
sys.path[:0] = sys.argv[1:]
from outlast.train.attention import choose_attention
choice = choose_attention(dtype="bfloat16", head_dim=64, device="A100-80")
print(choice.name)
print(dict(choice.tried).get("flash_attention_2"))
print([name for name in sys.modules if name.startswith("flash_attn")])
"""


def test_on_a_cpu_it_is_torchs_own() -> None:
    choice = choose_attention(dtype=torch.bfloat16, head_dim=64, device="cpu")
    assert str(choice) == (
        "sdpa: torch's own; not flash_attention_3: it needs a CUDA GPU; not flash_attention_2: it needs a CUDA GPU"
    )


@pytest.mark.parametrize(
    ("gpu", "dtype", "kernel"),
    [("T4", "float16", "efficient"), ("T4", "bfloat16", "math"), ("H100", "float32", "efficient")],
)
def test_a_gpu_that_is_not_here_can_be_planned_for(gpu: str, dtype: str, kernel: str) -> None:
    choice = choose_attention(dtype=dtype, head_dim=64, device=gpu)
    assert (choice.name, choice.kernel) == ("sdpa", kernel)


@pytest.mark.parametrize(
    ("code", "name", "reason", "left"),
    [
        (None, "sdpa", "flash-attn is not installed", "[]"),
        (fake_flash.COMPUTES, "flash_attention_2", "None", "['flash_attn']"),
        (fake_flash.MISSING_LIBRARY, "sdpa", "flash-attn 2.8.3 cannot be imported: OSError: libcudart.so.11.0", "[]"),
        (fake_flash.MISSING_SYMBOL, "sdpa", "flash-attn 2.8.3 cannot be imported: ImportError: flash_attn_2", "[]"),
    ],
)
def test_a_process_without_it_with_it_and_with_one_that_raises(
    tmp_path: Path, code: str | None, name: str, reason: str, left: str
) -> None:
    with installed(tmp_path / "site", code or "", "2.8.3"):
        pass
    done = python(ASK, *([tmp_path / "site"] if code else []))
    said = done.stdout.splitlines()
    assert (said[0], said[2]) == (name, left), done.stderr
    assert said[1].startswith(reason)


def test_a_package_that_cannot_be_of_use_is_not_imported(tmp_path: Path) -> None:
    with installed(tmp_path, "raise AssertionError('imported for nothing')"):
        choice = choose_attention(dtype="float16", head_dim=72, device="T4")
    assert dict(choice.tried)["flash_attention_2"] == "it needs compute capability 8.0 or more, this GPU has 7.5"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "bf17"}, "no type of numbers called 'bf17'"),
        ({"dtype": torch.int8}, "no type of numbers called 'int8'"),
        ({"head_dim": 0}, "the size of a head is 0"),
        ({"device": "RTX9"}, "no GPU called 'RTX9'"),
        ({"device": "cuda:77"}, "no device cuda:77 here"),
    ],
)
def test_what_there_is_not_is_an_error(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        choose_attention(**{"dtype": "float16", "head_dim": 64} | change)


def small(name: str, **sizes: Any) -> tuple[Any, Any]:
    import transformers

    config = getattr(transformers, f"{name}Config")(**sizes)
    return transformers, config


def test_a_transformers_model_takes_the_name(tmp_path: Path) -> None:
    transformers, config = small(
        "Llama", hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=50
    )
    choice = choose_for_transformers(transformers.LlamaForCausalLM, config, dtype=torch.float32, device="cpu")
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=choice.name)
    assert (choice.name, model.config._attn_implementation) == ("sdpa", "sdpa")
    assert choose_for_transformers(model, dtype="float32", device="cpu") == choice


def test_a_class_without_sdpa_gets_eager() -> None:
    transformers, config = small(
        "DebertaV2", hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=50
    )
    choice = choose_for_transformers(transformers.DebertaV2Model, config, dtype="float32", device="cpu")
    assert (choice.name, choice.tried[-1]) == ("eager", ("sdpa", "the model's class does not take it"))
    model = transformers.AutoModel.from_config(config, attn_implementation=choice.name)
    assert model.config._attn_implementation == "eager"


def test_what_transformers_does_not_accept_is_not_chosen_for_it(tmp_path: Path) -> None:
    # It would go to the hub for a kernel in its place. There is no CUDA here, so it accepts none.
    transformers, config = small("Llama", hidden_size=40, num_attention_heads=1)
    with installed(tmp_path, fake_flash.COMPUTES):
        choice = choose_for_transformers(transformers.LlamaForCausalLM, config, dtype="float16", device="A100-80")
    assert choice.name == "sdpa"
    assert dict(choice.tried)["flash_attention_2"] == "Transformers does not accept flash-attn 2.8.3 here"


def test_a_class_that_wants_a_kernel_of_the_hub_gets_none() -> None:
    transformers, config = small("Llama", hidden_size=32, num_attention_heads=4)

    class FromTheHub(transformers.LlamaForCausalLM):  # type: ignore[name-defined, misc]
        _compatible_flash_implementations = ("kernels-community/vllm-flash-attn3",)

    choice = choose_for_transformers(FromTheHub, config, dtype="float16", device="H100")
    assert choice.name == "sdpa"
    assert set(dict(choice.tried).values()) == {"the model's class does not take it"}


@pytest.mark.parametrize(
    ("name", "sizes", "head"),
    [
        ("T5", {"d_kv": 48, "d_model": 32, "num_heads": 4}, 48),
        ("GPT2", {"n_embd": 64, "n_head": 2}, 32),
        ("Gemma", {"head_dim": 320}, 320),
    ],
)
def test_the_size_of_a_head_is_read_from_the_configuration(name: str, sizes: dict[str, int], head: int) -> None:
    from outlast.train.attention import _head_of

    assert _head_of(small(name, **sizes)[1]) == head


def test_something_that_is_no_such_model_is_an_error() -> None:
    with pytest.raises(BadInput, match="not a Transformers model"):
        choose_for_transformers(torch.nn.Linear(2, 2), dtype="float16")
    with pytest.raises(BadInput, match="not a Transformers model"):
        choose_for_transformers(small("GPT2")[0].AutoModelForCausalLM, small("GPT2")[1], dtype="float16")


def test_types_are_known_by_their_short_names_too() -> None:
    for short, name in (("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32")):
        assert choose_attention(dtype=short, head_dim=64, device="T4") == choose_attention(
            dtype=name, head_dim=64, device="T4"
        )
