"""What `analysis.recommend` is made of: evidence, choices, limits, schedules, text."""
