"""The Qwen testbed: a real Qwen, small, sampled like any policy and enumerated exactly in float64."""

from rlvr_lib.testbeds.qwen.testbed import QwenTestbed, checkpoints
from rlvr_lib.testbeds.qwen.warm_start import WarmStart

__all__ = ["QwenTestbed", "WarmStart", "checkpoints"]
