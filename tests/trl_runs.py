"""Runs of TRL on the tiny Qwen, shared by the tests of the measured trainer."""

import os
import tempfile

import torch

from rlvr_lib.testbeds.group_tasks import WordProblem
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.theory.groups import symmetric_group
from rlvr_lib.trl.tasks import group_task

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # rollout_func, of which the tests make use

PLAIN = {
    "activation_checkpointing": False, "beta": 0.0, "bf16": False, "disable_tqdm": True, "logging_steps": 1,
    "loss_type": "dr_grpo", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "optim": "sgd", "report_to": "none",
    "save_strategy": "no", "scale_rewards": "none", "temperature": 1.0, "top_k": 0, "top_p": 1.0, "use_cpu": True,
    "weight_decay": 0.0,
}  # fmt: skip


def warm(lengths=(2,)):
    """The warm-started tiny Qwen, over all 16 symbols as TRL samples them."""
    testbed = QwenTestbed(alphabet="vocabulary").with_task(WordProblem(symmetric_group(3), lengths, 6))
    return testbed.at(testbed.theta)


def build(kind, testbed, prompts=4, group_size=4, steps=1, learning_rate=0.01, task=None, arguments=None, **options):
    """A trainer of a class on a testbed's own model."""
    from transformers import PrinterCallback
    from trl import GRPOConfig

    task = task or group_task(testbed.task, rows=64)
    settings = PLAIN | {
        "learning_rate": learning_rate, "max_completion_length": task.longest, "max_steps": steps,
        "num_generations": group_size, "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": prompts * group_size,
    } | (arguments or {})  # fmt: skip
    trainer = kind(
        model=testbed.model, reward_funcs=task.reward, args=GRPOConfig(**settings), train_dataset=task.data,
        processing_class=testbed.tokenizer, **options,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def logged(trainer, name):
    """One of the book's numbers at every step."""
    return [entry[f"rlvr/{name}"] for entry in trainer.state.log_history if f"rlvr/{name}" in entry]


class Replay:
    """A ``rollout_func`` that gives out stored responses, the same to each global row on any number of processes.

    Args:
        prompts: [N, P], token ids of the prompts of the N rows of a batch.
        tokens, mask: [K, N, T], K sets of responses, given out one after the other.
    """

    def __init__(self, prompts, tokens, mask):
        self.prompts, self.tokens, self.mask, self.calls = prompts, tokens, mask, 0

    def __call__(self, prompts, trainer):
        first = trainer.accelerator.process_index * len(prompts)
        rows = range(first, first + len(prompts))
        tokens, mask = self.tokens[self.calls % len(self.tokens)], self.mask[self.calls % len(self.mask)]
        self.calls += 1
        ids = [tokens[row][mask[row].bool()].tolist() for row in rows]
        return {
            "prompt_ids": [self.prompts[row].tolist() for row in rows],
            "completion_ids": ids,
            "logprobs": [[0.0] * len(row) for row in ids],
        }


def replayed(testbed, prompts, group_size, sets=1, seed=0):
    """Sampled rollouts of the prompts, and a ``Replay`` of them; the data set that goes with it."""
    from datasets import Dataset

    generator = torch.Generator().manual_seed(seed)
    rollouts = [testbed.rollout(prompts, group_size, generator) for _ in range(sets)]
    longest = max(rollout.tokens.shape[1] for rollout in rollouts)
    pad = [longest - rollout.tokens.shape[1] for rollout in rollouts]
    tokens = torch.stack([torch.nn.functional.pad(r.tokens, (0, p)) for r, p in zip(rollouts, pad, strict=True)])
    mask = torch.stack([torch.nn.functional.pad(r.mask, (0, p)) for r, p in zip(rollouts, pad, strict=True)])
    ids = testbed.task.prompt_tokens(prompts).repeat_interleave(group_size, 0)
    task = group_task(testbed.task, rows=1)
    text = [" ".join(testbed.task.symbols[token] for token in row) for row in testbed.task.prompt_tokens(prompts)]
    data = Dataset.from_dict({"prompt": text, "prompt_number": list(prompts)})
    return rollouts, Replay(ids, tokens, mask), type(task)(data, task.reward, testbed.task.width + 1)
