"""What to deploy, and what to measure next."""
