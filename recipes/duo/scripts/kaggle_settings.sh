# Sourced by the three scripts beside it: where things are, and what they have in common.
# Each value can be set from outside: OWT_SUBSET_NUM=1000 MODEL=tiny scripts/train_owt_kaggle.sh

recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export OWT_SUBSET_NUM=${OWT_SUBSET_NUM:-11000} # 9,900 documents to train on, 1,100 to validate on; about 30 MB to fetch
PLACE=${PLACE:-$([ -d /kaggle/working ] && echo /kaggle/working || echo "$recipe/outputs")}
RUN=${RUN:-$PLACE/duo-run}
PYTHON=${PYTHON:-python}

# train, evaluation and generation must agree on these.
shared=(
  "data=${DATA:-openwebtext-split}" algo=duo_base algo.backbone=hf_dit strategy=single
  "data.cache_dir=${CACHE:-$PLACE/hf_cache}"
  "model=${MODEL:-small}" "model.length=${LENGTH:-512}"
  loader.batch_size=2 loader.global_batch_size=2 loader.eval_batch_size=2 loader.eval_global_batch_size=2
  trainer.devices=1 trainer.num_nodes=1 trainer.accelerator=gpu trainer.precision=16
  "checkpointing.save_dir=$RUN"
)
