"""Hugging Face `datasets` in a script that nobody edits: subsets instead of 40 GB, and no map that fills the disk.

`wanted` says which data sets are to be cut, `slices` what a script's slices mean on what is left (both pure), `load`
gives it to ``load_dataset``; `map_guard` stops a map whose result would not fit (`growth` forecasts it).
"""
