"""Metrics and logs. Neither holds descriptions, prompts or completions."""
