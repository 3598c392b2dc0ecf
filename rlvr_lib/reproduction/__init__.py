"""Executes the notebooks, and keeps, stamps and compares what they found."""
