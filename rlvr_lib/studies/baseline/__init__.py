"""The runs behind chapter 5: what a baseline costs in variance, and whether training at equal samples shows it.

Functions take numbers and return numbers; what a claim breaks on purpose is a keyword with the honest default.
"""
