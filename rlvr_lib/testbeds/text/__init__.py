"""The text testbed: a real Qwen with a real tokenizer that reads sums in words and answers with a thought in tags."""

from rlvr_lib.testbeds.text.sums import Sums
from rlvr_lib.testbeds.text.testbed import Shape, TextTestbed
from rlvr_lib.testbeds.text.warm_start import WARM_START

__all__ = ["WARM_START", "Shape", "Sums", "TextTestbed"]
