"""Text-to-LoRA: a hypernetwork that writes LoRA adapters from task descriptions."""
