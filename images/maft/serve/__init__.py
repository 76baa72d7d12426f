"""`python -m maft.serve`: vLLM with the plug-in that fetches adapters."""
