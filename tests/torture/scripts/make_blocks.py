"""Make token blocks of a subset, as a user would: FOLDER TOKENIZER CACHE [LARGEST SHARD]. Prints their folder."""

from __future__ import annotations

import sys

from outlast import data
from outlast.data.text import making


def main() -> None:
    folder, tokenizer, cache, shard = sys.argv[1:5]
    making.SHARD_BYTES = int(shard)
    making._BATCH_TEXTS = 50
    print(data.blocks(data.open(folder), tokenizer, length=64, cache=cache).folder)


if __name__ == "__main__":
    main()
