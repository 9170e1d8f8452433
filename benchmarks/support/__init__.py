"""Parts of the benchmarks that are no benchmark themselves."""
