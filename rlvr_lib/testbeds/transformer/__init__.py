"""The synthetic transformer: one attention head and a frozen group head on chains of group elements."""

from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy
from rlvr_lib.testbeds.transformer.problems import WordProblems, draw_problems
from rlvr_lib.testbeds.transformer.testbed import TransformerTestbed

__all__ = ["AttentionPolicy", "TransformerTestbed", "WordProblems", "draw_problems"]
