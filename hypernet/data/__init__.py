"""Tasks to train and evaluate on: their files, the Hugging Face hub, and builders of further tasks."""
