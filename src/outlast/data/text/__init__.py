"""The text pipeline: texts into packed blocks of tokens, made once and found again by what went in."""
