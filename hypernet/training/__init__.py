"""Training a hypernetwork: by supervised fine-tuning through the frozen base model."""
