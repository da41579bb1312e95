#!/usr/bin/env bash
# Train on the first OWT_SUBSET_NUM documents of OpenWebText, guarded: a full disk, a kill and the end of the session
# lose no more than the steps since the last checkpoint, and the same command goes on from there.
#
# Usage: scripts/train_owt_kaggle.sh [KEY=VALUE ...]      further keys of main.py, e.g. trainer.max_steps=5000
#        DEADLINE=9h scripts/train_owt_kaggle.sh          when this session ends; on Kaggle it is known
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/kaggle_settings.sh"

deadline=${DEADLINE:-$([ -d /kaggle/working ] && echo auto || true)}
mkdir -p "$RUN"
cd "$recipe"
exec "$PYTHON" -m outlast run --dir "$RUN" ${deadline:+--deadline "$deadline"} -- \
  "$PYTHON" main.py mode=train "${shared[@]}" \
  trainer.max_steps=100 trainer.accumulate_grad_batches=1 trainer.log_every_n_steps=10 +wandb.offline=true "$@"
