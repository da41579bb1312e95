"""LoRA fine-tuning of a causal language model: the parts of train.py. Start from them, change them."""
