"""`python -m maft.preflight`: what would fail after a whole debate fails before it, without weights and without a GPU."""
