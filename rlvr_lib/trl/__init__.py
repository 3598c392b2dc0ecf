"""The book's quantities on TRL's ``GRPOTrainer`` (extra ``scale``); the trainer is imported on first use."""

from importlib import import_module

EXPORTS = {
    "Act": "trainer",
    "Measure": "trainer",
    "Memory": "trainer",
    "MeasuredGRPOTrainer": "trainer",
    "PREFIX": "rollouts",
    "watch": "reward_watch",
}

__all__ = list(EXPORTS)


def __getattr__(name: str) -> object:
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{EXPORTS[name]}"), name)
