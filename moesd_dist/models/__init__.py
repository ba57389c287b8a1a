"""Models without their weights: shapes, sources, and the plan that widens one."""
