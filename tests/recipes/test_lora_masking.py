"""recipes/lora: the loss is on the responses only, and no sample is without one."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora import base, offline
from lora.masking import IGNORED, Pad, answers, mask, prepare, renderer
from lora.records import Conversation, Turn
from outlast.errors import BadInput

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (  # as reasoning models have it: earlier answers are shortened once another turn follows
    "{% for m in messages %}[{{ m['role'] }}]"
    "{{ m['content'] if loop.last or m['role'] == 'user' else m['content'][:1] }};{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
STRICT = "{{ raise_exception('no system role') if messages[0]['role'] == 'system' else 'x' }}"
TALK = (Turn("user", "Hi there"), Turn("assistant", "Hello."), Turn("user", "And now?"), Turn("assistant", "Nothing."))


@functools.cache
def _made() -> Any:
    return base._trained(offline.conversations(300))


def tokenizer(template: str | None = None) -> Any:
    """A byte-level BPE of the offline data, with this chat template or the recipe's plain one."""
    import copy

    made = copy.deepcopy(_made())
    if template is not None:
        made.chat_template = template
    return made


def learned_text(sample: dict[str, Any], words: Any) -> str:
    """What the loss is on, as text."""
    return str(words.decode([token for token in sample["labels"] if token != IGNORED]))


def test_each_answer_is_learned_with_its_end_and_nothing_else_is() -> None:
    words = tokenizer()
    samples, tally = prepare([TALK], words, 200)
    assert learned_text(samples[0], words) == "Hello.</s>Nothing.</s>"
    assert words.decode(samples[0]["input_ids"]) == (
        "<s>### User:\nHi there\n\n### Assistant:\nHello.</s>\n\n"
        "### User:\nAnd now?\n\n### Assistant:\nNothing.</s>\n\n"
    )
    assert (tally.kept, tally.cut, tally.dropped, tally.hidden) == (1, 0, 0, 0)
    assert tally.learned == int((samples[0]["labels"] != IGNORED).sum())


def test_a_template_of_the_tokenizers_own_is_used_and_the_line_break_after_a_turn_is_not_learned() -> None:
    words = tokenizer(CHATML)
    samples, _ = prepare([TALK], words, 400)
    assert learned_text(samples[0], words) == "Hello.<|im_end|>Nothing.<|im_end|>"


def test_an_answer_that_the_template_rewrites_is_not_learned_and_is_counted() -> None:
    words = tokenizer(FORGETFUL)
    samples, tally = prepare([TALK], words, 400)
    assert learned_text(samples[0], words) == "Nothing.;"
    assert tally.hidden == 1
    assert "1 answers not learned" in str(tally)


def test_a_template_that_refuses_a_role_is_a_clear_error() -> None:
    with pytest.raises(BadInput, match="system user assistant: no system role"):
        prepare([(Turn("system", "s"), *TALK[:2])], tokenizer(STRICT), 100)


text = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(max_examples=60, deadline=None)
@given(turns=st.lists(st.tuples(text, text), min_size=1, max_size=3), length=st.integers(4, 120))
def test_of_any_conversation_the_learned_tokens_are_the_answers_up_to_the_length(
    turns: list[tuple[str, str]], length: int
) -> None:
    words = tokenizer()
    talk: Conversation = tuple(turn for asked, said in turns for turn in (Turn("user", asked), Turn("assistant", said)))
    full, _ = prepare([talk], words, 10_000)
    decode = functools.partial(words.decode, clean_up_tokenization_spaces=False)
    assert decode([t for t in full[0]["labels"] if t != IGNORED]) == "".join(f"{said}</s>" for _, said in turns)
    try:
        short, tally = prepare([talk], words, length)
    except BadInput:
        assert (full[0]["labels"][:length] == IGNORED).all()
        return
    assert np.array_equal(short[0]["labels"], full[0]["labels"][:length])
    assert np.array_equal(short[0]["input_ids"], full[0]["input_ids"][:length])
    assert (short[0]["labels"] != IGNORED).any()
    assert tally.cut == (len(full[0]["input_ids"]) > length)


def test_a_sample_whose_response_is_cut_away_is_dropped_and_counted() -> None:
    long = (Turn("user", "why " * 50), Turn("assistant", "because"))
    words = tokenizer()
    samples, tally = prepare([long, TALK, TALK], words, 40)
    assert len(samples) == tally.kept == 2
    assert (tally.read, tally.dropped) == (3, 1)
    assert "1 dropped: no response left within the length" in str(tally)
    with pytest.raises(BadInput, match="none has a token of a response within 40 tokens"):
        prepare([long], words, 40)


def test_a_tokenizer_that_joins_prompt_and_answer_learns_the_joined_token() -> None:
    # whole: [1, 2, 34, 5]; the prompt alone: [1, 2, 3]
    assert mask([1, 2, 34, 5], [([1, 2, 3], [1, 2, 34, 5])]).tolist() == [False, False, True, True]
    assert mask([1, 2, 3], [([1, 2], [1, 2])]).tolist() == [False, False, False]


def test_the_text_before_an_answer_is_the_beginning_of_the_whole() -> None:
    whole, spans, hidden = answers(TALK, renderer(tokenizer()))
    assert hidden == 0
    assert all(whole.startswith(begin) and whole.startswith(end) and len(end) > len(begin) for begin, end in spans)


def test_samples_are_in_order_whatever_their_number() -> None:
    words = tokenizer()
    talks = [(Turn("user", "n?"), Turn("assistant", str(n))) for n in range(1203)]
    samples, _ = prepare(talks, words, 50)
    assert [learned_text(samples[n], words) for n in (0, 499, 500, 1202)] == [f"{n}</s>" for n in (0, 499, 500, 1202)]


def test_padding_is_neither_attended_nor_learned_and_the_end_mark_still_is() -> None:
    words = tokenizer()
    samples, _ = prepare([TALK, TALK[:2]], words, 200)
    batch = Pad(words.eos_token_id)([samples[0], samples[1]])  # where a model has no padding token, its end pads
    length = batch["input_ids"].shape[1]
    assert length % 8 == 0
    size = len(samples[1]["input_ids"])
    assert batch["attention_mask"].sum(1).tolist() == [len(samples[0]["input_ids"]), size]
    assert (batch["labels"][1, size:] == IGNORED).all()
    assert (batch["input_ids"][1, size:] == words.eos_token_id).all()
    assert words.eos_token_id in batch["labels"][1]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_the_loss_of_a_model_does_not_depend_on_what_is_asked_but_through_its_answers() -> None:
    """The label of a prompt's token could be anything: the loss is the mean over the responses' tokens alone."""
    words = tokenizer()
    samples, _ = prepare([TALK], words, 200)
    batch = Pad(words.pad_token_id)([samples[0]])
    logits = torch.randn(1, batch["labels"].shape[1], len(words), generator=torch.Generator().manual_seed(0))
    shifted, targets = logits[0, :-1], batch["labels"][0, 1:]
    learned = targets != IGNORED
    by_hand = -torch.log_softmax(shifted[learned], -1).gather(1, targets[learned][:, None]).mean()
    from transformers.loss.loss_utils import ForCausalLMLoss

    assert torch.allclose(ForCausalLMLoss(logits, batch["labels"], len(words)), by_hand)
