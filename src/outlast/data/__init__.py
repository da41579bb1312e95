"""Subsets of any data set in bounded disk and RAM: planned from footers, fetched exactly, read with an exact position.

`plan` says what a subset costs before a byte of it travels; `fetch` makes it, as Parquet shards that everything reads;
`open` reads them in an order that is part of a checkpoint.
"""
