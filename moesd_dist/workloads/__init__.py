"""Where prompts come from: held-out standard-library text, JSON lines, or random tokens."""
