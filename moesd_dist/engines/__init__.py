"""What measures a point: transformers (instrumented), analytic (simulated), vLLM (production)."""
