"""Sentences of legal documents, classified with BERT under `outlast.Run`: yours to read and to change.

`settings` says what to do, `documents` and `splits` what to learn from, `training` does it, `report` says how well.
"""
