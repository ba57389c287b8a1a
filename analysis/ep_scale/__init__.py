"""How far speculation carries on hundreds of ranks: predicted over expert parallelism, beside what was published."""
