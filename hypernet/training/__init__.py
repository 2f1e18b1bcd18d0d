"""Training of hypernetworks (on tasks, a library of LoRAs or a larger network) and of plain
LoRAs.
"""
