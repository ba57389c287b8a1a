"""What `analysis.fit` is made of: samples, results, tables, figures, files, verdict."""
