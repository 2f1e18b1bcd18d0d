"""The inference engine: vLLM and the adapters that are loaded into it."""
