"""Where adapters come from and where they are kept: key, batcher, single-flight, stores."""
