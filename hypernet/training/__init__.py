"""Training: hypernetworks, from tasks, a library of LoRAs or one another, and the plain LoRAs beside them."""
