"""The forward of a Qwen against the one of ``transformers``, in two precisions."""

import pytest
import torch
from qwen_policies import scrambled

from rlvr_lib.testbeds.qwen import QwenTestbed


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_forward_equals_hugging_face(family, dtype, tolerance):
    """float64 too agrees only to float32 accuracy: HF normalises in float32 whatever the parameters are."""
    testbed = scrambled(0, family=family, alphabet="vocabulary")
    testbed.model.to(dtype)
    tokens = torch.randint(16, (5, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = testbed.model(tokens).logits.log_softmax(-1)[:, 3:-1].gather(-1, tokens[:, 4:, None])[..., 0]
        ours = testbed.plain.row_log_probs(testbed.named, tokens[:, :4], tokens[:, 4:])
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
def test_forward_is_exact_in_float64(family, monkeypatch):
    """With HF's normalisation done in float64, nothing but rounding is left between the two."""
    from transformers.models.qwen2 import modeling_qwen2
    from transformers.models.qwen3 import modeling_qwen3

    def normalise(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(modeling_qwen2.Qwen2RMSNorm, "forward", normalise)
    monkeypatch.setattr(modeling_qwen3.Qwen3RMSNorm, "forward", normalise)
    testbed = scrambled(1, family=family, alphabet="vocabulary")
    tokens = torch.randint(16, (5, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = testbed.model(tokens).logits.log_softmax(-1)[:, 3:-1].gather(-1, tokens[:, 4:, None])[..., 0]
        ours = testbed.plain.row_log_probs(testbed.named, tokens[:, :4], tokens[:, 4:])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_trial_model_has_75136_parameters():
    assert len(QwenTestbed(warm_start=None).theta) == 75_136
