"""Benchmarks: estimators compared, rasterisers as control, scaling, experiments of the field rebuilt.

Every measurement runs in a process of its own with an empty kernel cache (`worker`), so that the time to the first
gradient, the peak memory and a crash belong to it alone. Suites write JSON with the versions, the processor, its load
and the seeds (`record`); tables and plots are made from the JSON by `publish`, and nothing in the documentation is
typed by hand.
"""
