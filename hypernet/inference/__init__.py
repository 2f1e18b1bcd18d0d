"""The networks as they serve: constants folded, linear layers prepacked, batches of fixed sizes."""
