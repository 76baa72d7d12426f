"""`python -m maft.train`: LoRA adapters from datasets."""
