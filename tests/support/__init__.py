"""Shared by several tests: fakes of the server's parts, tiny models,
and a server in its own process.
"""
