"""`kind: Society` on a cluster: the finetuned agents of a run behind one URL."""
