"""A load generator for a running server: `t2l bench serve`."""
