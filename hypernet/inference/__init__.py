"""Networks for inference: constants folded, linear layers prepacked,
batches padded to fixed sizes.
"""
