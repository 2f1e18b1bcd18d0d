"""Adapters: ids, generation in batches, and the caches in memory and in Redis."""
