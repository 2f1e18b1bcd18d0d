"""The engine room: vLLM, the adapters in it, and what is mended about it."""
