"""One module per case: `run(context)` measures and returns comparisons or other results."""
