"""A program as users write it: a model, a data set and weights by URL, each with its library's defaults."""

from __future__ import annotations

import json
import sys

import datasets
import torch
from huggingface_hub import hf_hub_download, snapshot_download
from torch._inductor.runtime.cache_dir_utils import cache_dir

url = sys.argv[1]
config = hf_hub_download("org/tiny", "config.json")
snapshot = snapshot_download("org/tiny")
rows = datasets.load_dataset("org/rows", split="train")
doubled = rows.map(lambda row: {"b": row["a"] * 2})
torch.hub.load_state_dict_from_url(f"{url}/org/tiny/resolve/main/weights.pt", progress=False)
found = {
    "hf-hub": config,
    "hf-datasets": rows.cache_files[0]["filename"],
    "map": doubled.cache_files[0]["filename"],
    "torch": torch.hub.get_dir(),
    "inductor": cache_dir(),
}
print("found:" + json.dumps(found))
