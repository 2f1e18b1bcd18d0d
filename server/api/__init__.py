"""Routes and schemas: HTTP in and out, and nothing of how an answer is made."""
