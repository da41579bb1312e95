"""Seed 001's run in small: 28 saves on a volume with room for one and a half checkpoints, killed once on the way.

The volume is a real one where this user may mount one (as root, or in a user namespace), else a declared budget.
Everything is written under demo-lora/. Exits with 0 only if what is promised came true.

Usage: python recipes/lora/demo.py
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = Path("demo-lora").resolve()
OUT = PLACE / "volume" / "run"
IN_NAMESPACE = "OUTLAST_DEMO_IN_NAMESPACE"
SIZE = 8_300_000
"""Bytes: the tiny base takes 2.2 MB, a checkpoint 4.0 MB, so that is the base and one and a half checkpoints."""
STEPS, EVERY, KILL_AT = 140, 5, 60
TRAIN = [
    sys.executable, str(HERE / "train.py"), "--preset", "toy", "--output-dir", str(OUT), "--max-steps", str(STEPS),
    "--save-steps", str(EVERY), "--eval-steps", str(STEPS // 2),
]  # fmt: skip
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


def say(text: str) -> None:
    """A heading."""
    print(f"\n=== {text}", flush=True)


def outlast(*words: str) -> list[str]:
    """The words of one of Outlast's commands."""
    return [sys.executable, "-m", "outlast", *words]


def show(words: list[str], lines: int = 40) -> int:
    """Run a command and show the beginning of what it says."""
    print("$", " ".join(words[2:] if words[1] == "-m" else words), flush=True)
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT)
    print("\n".join((done.stdout + done.stderr).splitlines()[:lines]), flush=True)
    return done.returncode


def may_unshare() -> bool:
    """True when this user can mount a volume in a namespace of their own."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def clear(*, can_mount: bool) -> None:
    """A fresh volume for the run."""
    place = OUT.parent
    if place.is_mount():
        subprocess.run(["umount", place], check=True)
    shutil.rmtree(PLACE, ignore_errors=True)
    place.mkdir(parents=True)
    if can_mount:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "outlast-demo", place], check=True)


def leave() -> None:
    """The volume goes with the demo, however that ends."""
    if OUT.parent.is_mount():
        subprocess.run(["umount", "-l", OUT.parent], check=False)


def training_process(supervisor: int) -> int | None:
    """The process that `outlast run` started."""
    for word in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        try:
            if str(HERE / "train.py").encode() in Path(f"/proc/{word}/cmdline").read_bytes().split(b"\0"):
                return int(word)
        except OSError:
            continue
    return None


def train(*options: str) -> tuple[int, str, bool]:
    """Run the training under `outlast run`, and kill -9 it once; returns exit code, output, was it killed."""
    words = outlast("run", "--dir", str(PLACE), *options, "--", *TRAIN)
    print("$ outlast", *words[3:], flush=True)
    with (PLACE / "said").open("w+b") as said:
        child = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT, env=ENVIRONMENT)
        is_killed = False
        try:
            while child.poll() is None:
                time.sleep(0.02)
                victim = training_process(child.pid) if not is_killed and steps_sealed() >= KILL_AT else None
                if victim is not None:
                    os.kill(victim, signal.SIGKILL)
                    is_killed = True
                    print(f"  (kill -9 {victim}, after the save at step {steps_sealed()})", flush=True)
        finally:
            child.terminate()  # `outlast run` ends what it started; one that has ended takes no notice
        said.seek(0)
        text = said.read().decode(errors="replace")
    print("\n".join("  | " + line[:150] for line in text.splitlines() if "Writing model shards" not in line))
    return child.returncode, text, is_killed


def steps_sealed() -> int:
    """Step of the newest sealed checkpoint; 0 without one."""
    names = [path.parent.name for path in OUT.glob("checkpoint-*/outlast.json")]
    return max((int(name.partition("-")[2]) for name in names), default=0)


def losses() -> tuple[list[float], list[float]]:
    """Of the training and of the validation, as the last checkpoint has them."""
    log = json.loads((OUT / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())["log_history"]
    return [e["loss"] for e in log if "loss" in e], [e["eval_loss"] for e in log if "eval_loss" in e]


def answer(question: str) -> str:
    """What the finished adapter says, loaded as PEFT loads any."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # between PEFT and Transformers
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    model = AutoPeftModelForCausalLM.from_pretrained(OUT / "final").eval()
    tokenizer = AutoTokenizer.from_pretrained(OUT / "final")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    asked = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        said = model.generate(**asked, max_new_tokens=16, do_sample=False)
    return str(tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def main() -> int:
    """Show it; returns the exit code."""
    is_root = os.geteuid() == 0
    if not is_root and may_unshare() and IN_NAMESPACE not in os.environ:
        words = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, *sys.argv]
        os.execvpe(words[0], words, {**os.environ, IN_NAMESPACE: "1"})
    clear(can_mount=is_root)
    promises: dict[str, bool] = {}

    say(f"Before: will {STEPS // EVERY} saves, three kept, fit on {SIZE / 1e6:.1f} MB?")
    volume = ["--volume", f"{SIZE / 1e6}MB", "--used", "1kB"] if not is_root else []
    code = show(outlast("plan", "--also", "base=2.2MB", *volume, "--", *TRAIN), lines=8)
    promises["outlast plan says: only under outlast run"] = code == 1

    say("The training, with a kill -9 on the way")
    budget = [] if is_root else ["--budget", f"{OUT.parent}={SIZE / 1e6}MB"]
    code, text, is_killed = train(*budget)
    promises["it was killed, and ended well all the same"] = is_killed and code == 0
    promises[f"all {STEPS} steps are done"] = f"finished at step {STEPS}" in text
    promises["its checkpoints verify"] = show(outlast("checkpoints", "verify", "--dir", str(OUT))) == 0

    say("The adapter")
    config = json.loads((OUT / "final/adapter_config.json").read_text())
    print({name: config[name] for name in ("base_model_name_or_path", "r", "lora_alpha", "target_modules")})
    train_losses, validation = losses()
    promises[f"loss on the responses falls ({train_losses[0]:.2f} to {validation[-1]:.2f}, held-out prompts)"] = (
        validation[-1] < 0.97 * train_losses[0]
    )
    question = "What does json.dumps do?"
    said = answer(question)
    print(f"PEFT loads it. A random base has nothing to say, but in the tone of docstrings:\n  {question}\n  {said!r}")
    promises["PEFT loads it and it writes"] = bool(said)
    if is_root:
        print(f"The volume is unmounted now, and the run with it; the journal stays in {PLACE}.")

    say("What was promised")
    for promise, came_true in promises.items():
        print(f"  {'yes' if came_true else 'NO '}  {promise}")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    # Stopped from outside, it takes its training and its volume along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    atexit.register(leave)
    sys.exit(main())
