"""The Qwen testbed: a real Qwen, small, sampled like any policy and enumerated exactly in float64."""

from rlvr_lib.testbeds.qwen.testbed import QwenTestbed

__all__ = ["QwenTestbed"]
