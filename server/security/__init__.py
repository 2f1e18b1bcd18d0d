"""What keeps a request from costing more than it may."""
