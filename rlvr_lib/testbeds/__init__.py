"""Testbeds: policies whose responses can be enumerated exactly and sampled.

Each offers ``enumerate(prompt) -> Responses``, ``exact(prompt) -> (success, gradient)`` and
``sample(prompt, n, seed) -> Responses``.
"""
