"""HTTP routes and schemas. The service does the work."""
