#!/usr/bin/env bash
# What Hugging Face's caches on Kaggle's output volume hold and nobody uses, with sizes. Deletes nothing without --yes.
#
# Never `rm -rf /kaggle/working/hf*`: a login, a download that goes on, and your own folder of that name are below it too.
# `outlast clean` takes what it knows, nothing that is in use, and writes down every path.
#
# Usage: scripts/cleanup_kaggle_cache.sh [--yes] [--outputs FOLDER ...]
#          --yes              do it
#          --outputs FOLDER   also this old run, whole: its checkpoints are gone then
set -euo pipefail

PLACE=${PLACE:-/kaggle/working}
PYTHON=${PYTHON:-python}
go=() outputs=()
while [ $# -gt 0 ]; do
  case $1 in
    --yes) go=(--yes) ;;
    --outputs)
      [ $# -gt 1 ] || { echo "--outputs needs a folder" >&2; exit 2; }
      outputs+=("$2")
      shift
      ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "$1 is not known; see $0 --help" >&2; exit 2 ;;
  esac
  shift
done

status=0
found=0
for home in "$PLACE"/hf "$PLACE"/hf_cache "$PLACE"/huggingface; do
  [ -d "$home" ] && [ ! -L "$home" ] || continue
  found=1
  echo "== $home"
  # Its own variables alone: what a notebook set for another place would be cleaned in that place.
  env -u HF_HUB_CACHE -u HF_DATASETS_CACHE -u HF_XET_CACHE -u HUGGINGFACE_HUB_CACHE HF_HOME="$home" \
    "$PYTHON" -m outlast clean --up-to download --only hf-hub --only hf-datasets --only hf-xet "${go[@]}" || status=$?
done
[ $found -eq 1 ] || echo "no cache of Hugging Face under $PLACE"
if [ ${#outputs[@]} -gt 0 ]; then
  echo "== old outputs"
  # A home that is not there: nothing but these folders is looked at.
  env -u HF_HUB_CACHE -u HUGGINGFACE_HUB_CACHE HF_HOME="$PLACE/.no-home" \
    "$PYTHON" -m outlast clean --only hf-hub "${go[@]}" "${outputs[@]}" || status=$?
fi
exit $status
