"""vLLM measured from inside: one engine a process, its steps on the clock."""
