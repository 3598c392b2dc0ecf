"""Pure functions of scored responses, their Gram matrices or numbers; they know no testbed.

An argument outside the domain that its docstring gives is a ``ValueError`` that names it and says what is allowed.
"""
