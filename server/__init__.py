"""The online adapter-generation inference server."""
