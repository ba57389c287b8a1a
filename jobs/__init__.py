"""What one submits to a cluster or runs for hours: thin entry points."""
