"""Peak memory of a training step, predicted: how long it takes, what accelerate says of it, and a whole `outlast fit`.

    .venv/bin/python benchmarks/fit.py [--quick]

Each row runs in a process of its own, so that seconds and RAM are its own; seconds are without importing torch and
Transformers. accelerate's figure is what `accelerate estimate-memory` prints for training: it knows no batch, length,
attention, checkpointing, adapter or GPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

MIB = 1 << 20
BERT = {"model": "bert", "batch": 16, "length": 512, "gpu": "T4", "precision": "fp32"}
LLAMA = {"model": "llama-1.2b", "batch": 4, "length": 1024, "gpu": "A100-40", "precision": "bf16"}
SEVEN = {"model": "llama-7b", "batch": 4, "length": 1024, "gpu": "A100-80", "precision": "bf16"}
FITS = (
    "bert-base --gpu T4 --batch 16 --length 512",
    "bert-large --gpu T4 --batch 64 --length 512",
    "llama-3.1-8b --gpu A100-40 --batch 16 --length 1024 --lora 16",
    "llama-2-7b --gpu T4 --batch 16 --length 1024 --lora 16",
)
ROWS: tuple[dict[str, Any], ...] = (
    {**BERT, "attention": "eager", "proof": "11347/11678"},
    {**BERT, "attention": "eager", "precision": "fp16", "proof": "8837/9090"},
    {**BERT, "proof": "6167/6352"},
    {**BERT, "precision": "fp16", "proof": "4635/4738"},
    {**BERT, "precision": "fp16", "batch": 8, "proof": "3058/3392"},
    {**BERT, "precision": "fp16", "checkpointing": True, "proof": "1974/2292"},
    {**LLAMA},
    {**LLAMA, "checkpointing": True, "proof": "8856/10370"},
    {**SEVEN},
    {**SEVEN, "checkpointing": True},
)


def models(row: dict[str, Any]) -> tuple[Any, Any]:
    """What makes the model, and what makes a batch."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

    from outlast.budget.lora import with_lora

    shape = (row["batch"], row["length"])

    def batch() -> dict[str, Any]:
        ids = torch.ones(shape, dtype=torch.long)
        return {"input_ids": ids, "labels": torch.zeros(shape[0], dtype=torch.long) if row["model"] == "bert" else ids}

    if row["model"] == "bert":
        config = BertConfig()
        config._attn_implementation = row.get("attention", "sdpa")
        return lambda: BertForSequenceClassification._from_config(config), batch
    sizes = (
        {"vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32}
        if row["model"] == "llama-7b"
        else {
            "vocab_size": 128_256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
        }
    )
    llama = LlamaConfig(num_attention_heads=32, **sizes)
    return lambda: with_lora(LlamaForCausalLM._from_config(llama, dtype=torch.bfloat16), 16), batch


def accelerate_says(model_fn: Any, precision: str) -> int:
    """Bytes for training, by accelerate's public functions."""
    from accelerate import init_empty_weights
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    with init_empty_weights():
        total, _ = calculate_maximum_sizes(model_fn().float())
    kind = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[precision]
    return int(max(estimate_training_usage(total, kind).values()))


def one(row: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers

    from outlast.budget import predict

    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    model_fn, batch_fn = models(row)
    transformers.LlamaForCausalLM, transformers.BertForSequenceClassification  # noqa: B018 (imported before the clock)
    start = time.perf_counter()
    said = predict(
        model_fn,
        batch_fn,
        gpu=row["gpu"],
        precision=row["precision"],
        checkpointing=row.get("checkpointing", False),
    )
    seconds = time.perf_counter() - start
    return {
        "allocated": said.peak_allocated_bytes,
        "reserved": said.peak_reserved_bytes,
        "needed": said.needed_bytes,
        "fits": said.fits,
        "at": f"{said.phase}: {said.operation}",
        "seconds": seconds,
        "ram": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "accelerate": accelerate_says(model_fn, row["precision"]),
    }


def whole_fits(quick: bool) -> None:
    """The command as a user calls it: seconds of the process, imports and all."""
    print("\nwhole `outlast fit`, imports included: seconds, CPU seconds, predictions, choice")
    for words in FITS[:1] if quick else FITS:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "outlast", "fit", *words.split(), "--json"], stdout=subprocess.PIPE, text=True
        )
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        got = json.loads(done.stdout)
        chosen = got.get("chosen")
        what = (
            f"{len(got['tried'])}  {chosen['micro_batch']} x {chosen['accumulation']} {chosen['precision']}"
            f"{' checkpointing' if chosen['checkpointing'] else ''} {chosen['optimizer']}"
            if chosen
            else "-  does not fit"
        )
        print(f"{words:62} {seconds:6.1f} {cpu:6.1f}  {what}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="BERT with SDPA and the 7B with checkpointing only")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(one(json.loads(args.row))))
        return
    print("MiB                                                allocated  reserved        proof  +context  fits")
    print("                                                         accelerate  seconds  RAM  peak at")
    for row in (ROWS[2], ROWS[-1]) if args.quick else ROWS:
        done = subprocess.run(
            [sys.executable, __file__, "--row", json.dumps(row)], stdout=subprocess.PIPE, text=True, check=True
        )
        got = json.loads(done.stdout.splitlines()[-1])
        name = " ".join(
            [
                row["model"] + ("" if row["model"] == "bert" else " LoRA"),
                f"{row['batch']}x{row['length']}",
                row["precision"],
                row.get("attention", "sdpa"),
                "ckpt" if row.get("checkpointing") else "",
                row["gpu"],
            ]
        )
        mib = {key: f"{got[key] / MIB:,.0f}" for key in ("allocated", "reserved", "needed", "accelerate", "ram")}
        print(
            f"{name:50} {mib['allocated']:>9} {mib['reserved']:>9} {row.get('proof', '-'):>12} {mib['needed']:>9}"
            f"  {'yes' if got['fits'] else 'no'}\n{'':56} {mib['accelerate']:>10} {got['seconds']:>8.1f}"
            f" {mib['ram']:>5} {got['at']}",
            flush=True,
        )
    whole_fits(args.quick)


if __name__ == "__main__":
    main()
