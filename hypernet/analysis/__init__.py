"""Analyses of a trained hypernetwork: its costs, what it tells apart, and where it fails."""
