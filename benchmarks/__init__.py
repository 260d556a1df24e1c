"""The benchmarks: one file for each promise that has a number. See `README.md`."""
