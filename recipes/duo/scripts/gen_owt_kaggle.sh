#!/usr/bin/env bash
# Text from the newest checkpoint, into samples.json beside it.
#
# Usage: scripts/gen_owt_kaggle.sh [KEY=VALUE ...]        e.g. sampling.steps=256 sampling.num_sample_batches=4
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/kaggle_settings.sh"

cd "$recipe"
exec "$PYTHON" main.py mode=sample_eval "${shared[@]}" sampling.steps=128 sampling.noise_removal=greedy "$@"
