"""Tasks to train and evaluate on: task files, datasets of the Hugging Face hub,
and builders of tasks.
"""
