"""Reading a subset, or any Parquet: rows in an epoch's order, and a place in it that is part of a checkpoint."""
