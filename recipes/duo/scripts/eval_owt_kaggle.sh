#!/usr/bin/env bash
# The perplexity of the newest checkpoint on the held-out documents, into perplexity.json beside it.
#
# Usage: scripts/eval_owt_kaggle.sh [KEY=VALUE ...]       e.g. eval.checkpoint_path=/kaggle/working/duo-run/checkpoints/last.ckpt
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/kaggle_settings.sh"

cd "$recipe"
exec "$PYTHON" main.py mode=ppl_eval "${shared[@]}" trainer.limit_val_batches=null "$@"
