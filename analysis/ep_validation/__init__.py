"""What was foretold of expert-parallel points beside what was measured there, and a verdict."""
