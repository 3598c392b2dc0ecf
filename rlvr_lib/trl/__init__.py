"""The book's quantities on TRL's ``GRPOTrainer`` (extra ``scale``); the trainer is imported on first use."""

from importlib import import_module

__all__ = ["PREFIX", "Act", "GroupDiagnostics", "Measure", "MeasuredGRPOTrainer", "Memory", "watch"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = {"GroupDiagnostics": "diagnostics", "PREFIX": "rollouts", "watch": "reward_watch"}.get(name, "trainer")
    return getattr(import_module(f"{__name__}.{place}"), name)
