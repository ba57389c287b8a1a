"""What finished sweeps say: tables, sentences, curves and figures made from records alone."""
