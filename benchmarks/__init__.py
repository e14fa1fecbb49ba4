"""The benchmarks: Ordinaut beside other Python job queues, measured the same way. `python -m benchmarks`."""
