"""What operators see of a running server: metrics and logs, and never a word of what users wrote."""
