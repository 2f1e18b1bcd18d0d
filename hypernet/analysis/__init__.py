"""What a trained hypernetwork costs, what it has learnt to tell apart, and where it breaks."""
