"""Our figures beside those of `vllm bench serve`: the server, our side, the table."""
