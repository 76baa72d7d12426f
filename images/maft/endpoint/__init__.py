"""The Society: the finetuned agents of a run as an OpenAI-compatible server."""
