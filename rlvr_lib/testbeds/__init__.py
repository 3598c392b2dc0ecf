"""Testbeds: policies whose responses can be enumerated exactly and sampled.

``policy`` says which words they share. An argument outside the domain that its docstring gives is a ``ValueError`` that
names it and says what is allowed.
"""
