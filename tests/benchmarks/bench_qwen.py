"""Times of the Qwen testbed on one core, each against a named baseline measured in the same run.

Repeats alternate between the two, and a ratio is the median over repeats, so that a busy machine slows both alike.
"""

from __future__ import annotations

import copy
import functools
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rlvr_lib.testbeds.group_tasks import EQUALS, PAD, WordProblem
from rlvr_lib.testbeds.grpo import GRPO, one_thread, train
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.theory.groups import symmetric_group

QUICKER, COST = "times faster than the baseline", "times the cost of the baseline"
STEPS = 15


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name, baseline, ours, theirs, repeats, meaning, bound, bound_ms=None) -> dict:
    """Alternate two pieces of work, each measured in seconds by its own function."""
    pairs = [(ours(), theirs()) for _ in range(repeats)]
    ratio = [b / a if meaning == QUICKER else a / b for a, b in pairs]
    return {
        "name": name, "baseline": baseline, "ratio": statistics.median(ratio), "meaning": meaning, "bound": bound,
        "repeats": repeats, "ms": 1e3 * statistics.median(a for a, _ in pairs), "bound_ms": bound_ms,
        "baseline_ms": 1e3 * statistics.median(b for _, b in pairs),
    }  # fmt: skip


def trl_step(testbed: QwenTestbed) -> Callable[[], float]:
    """Median seconds of a step of TRL's GRPOTrainer on the testbed's own model, at its learning rate 0."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    task, ticks = testbed.task, []

    class Clock(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            ticks.append(time.perf_counter())

    def reward(completion_ids, prompt_number, **_):
        width = max(map(len, completion_ids))
        tokens = torch.tensor([row + [PAD] * (width - len(row)) for row in completion_ids])
        length = torch.tensor([[len(row)] for row in completion_ids])
        return task.reward(prompt_number, tokens[:, None], length)[:, 0].double().tolist()

    prompts = task.draw(256, torch.Generator().manual_seed(0))
    text = [" ".join(task.symbols[token] for token in row) for row in task.prompt_tokens(prompts)]
    settings = GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=128, num_generations=16, steps_per_generation=1,
        num_iterations=1, max_completion_length=task.response_limit(prompts[0]), temperature=1.0, top_k=0, top_p=1.0,
        beta=0.0, loss_type="dr_grpo", scale_rewards="group", bf16=False, gradient_checkpointing=False, use_cpu=True,
        learning_rate=0.0, lr_scheduler_type="constant", max_grad_norm=0.0, optim="adamw_torch", max_steps=STEPS,
        logging_steps=10_000, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=testbed.model, reward_funcs=reward, args=settings, processing_class=testbed.tokenizer,
        train_dataset=Dataset.from_dict({"prompt": text, "prompt_number": list(prompts)}), callbacks=[Clock()],
    )  # fmt: skip

    def measure() -> float:
        ticks.clear()
        trainer.train()
        return statistics.median(np.diff(ticks))

    return measure


def grpo_step(repeats: int) -> list[dict]:
    """A step of 16 responses a prompt against TRL's, and against two floors of matrix products."""
    task = WordProblem(symmetric_group(3), (5,), 6)
    testbed = QwenTestbed(alphabet="vocabulary").with_task(task)
    rows = floor_rows("GRPO step, 32 x 16, at the warm start", testbed, 32, repeats, 3.0)
    for when, steps in (("at the warm start", 0), ("100 steps later", 100)):
        train(testbed, functools.partial(task.draw, 8), GRPO(), steps, 1)
        name = f"GRPO step, 8 x 16, {when}"
        ours = functools.partial(step_time, testbed, 8, STEPS)
        rows.append(compare(name, "TRL GRPOTrainer", ours, trl_step(testbed), repeats, QUICKER, 2.5))
        rows += floor_rows(name, testbed, 8, repeats)
    return rows


def step_time(testbed: QwenTestbed, prompts: int, steps: int) -> float:
    """Median seconds of our step at learning rate 0."""
    settings, ticks = GRPO(optimizer="adamw", learning_rate=0.0), []
    draw = functools.partial(testbed.task.draw, prompts)
    train(testbed, draw, settings, steps, 0, lambda _: ticks.append(time.perf_counter()))
    return statistics.median(np.diff(ticks)) if steps > 1 else 0.0


def floor_rows(name: str, testbed: QwenTestbed, prompts: int, repeats: int, bound: float | None = None) -> list[dict]:
    """Our step against the time of floating-point operations at the rate of a large matrix product.

    Two counts: 8 for every matrix entry and token of a step that evaluates each prompt once and each response by
    itself (2 sampling, 2 forward, 4 backward), which the bound is about, and the fewer ones that our step performs,
    since it also shares the prefixes of responses.
    """
    with FlopCounterMode(display=False) as counter:
        step_time(testbed, prompts, 1)
    generator = torch.Generator().manual_seed(0)
    rollout = testbed.rollout(testbed.task.draw(prompts, generator), GRPO().group_size, generator)
    evaluated = testbed.task.prompt_tokens(rollout.prompts).numel() + int((rollout.length - 1).sum())
    entries = sum(value.numel() for value in testbed.parameters() if value.ndim == 2)
    square = torch.randn(1024, 1024)
    rate = 2 * 1024**3 / min(timed(lambda: square @ square) for _ in range(10))

    def row(what: str, operations: int, bound: float | None) -> dict:
        baseline = f"{what}, {operations / 1e6:.0f} MFLOP at {rate / 1e9:.0f} GFLOP/s"
        ours, floor = functools.partial(step_time, testbed, prompts, STEPS), functools.partial(float, operations / rate)
        return compare(name, baseline, ours, floor, repeats, COST, bound)

    return [
        row("products of a step that shares prompts only", 8 * entries * evaluated, bound),
        row("its own matrix products", counter.get_total_flops(), None),
    ]


def hugging_face_gradient(testbed: QwenTestbed, prompt: int, chunk: int = 2048) -> np.ndarray:
    """Gradient of the success rate from the HF forward of every response, row by row."""
    model, task = testbed.at(testbed.theta).model.double(), testbed.task
    tokens, length = testbed.responses(prompt)
    correct = task.reward([prompt], tokens[None], length[None])[0]
    prompts = task.prompt_tokens([prompt]).expand(len(tokens), -1)
    alphabet, mask = testbed.plain.alphabet, torch.arange(tokens.shape[1]) < length[:, None]
    for part in torch.arange(len(tokens)).split(chunk):
        inputs = torch.cat([prompts[part], tokens[part, :-1]], 1)
        logits = model(inputs).logits[:, prompts.shape[1] - 1 :]
        log_probs = logits - logits[..., alphabet].logsumexp(-1, keepdim=True)
        picked = log_probs.gather(-1, tokens[part][..., None])[..., 0]
        (torch.where(mask[part], picked, 0.0).sum(-1).exp() * correct[part]).sum().backward()
    return torch.cat([value.grad.flatten() for value in model.parameters()]).numpy()


def oracle(repeats: int) -> list[dict]:
    """Exact success and gradient over the whole tree of responses."""
    rows, group = [], symmetric_group(3)
    for alphabet, count, bound_ms in (("answers", 1_555, 100), ("vocabulary", 54_241, 1200)):
        testbed = QwenTestbed(alphabet=alphabet).with_task(WordProblem(group, (3,), 6))
        assert len(testbed.responses(7)[0]) == count
        np.testing.assert_allclose(testbed.exact(7)[1], hugging_face_gradient(testbed, 7), atol=1e-5)
        name = f"exact success and gradient, {count:,} responses"
        ours = functools.partial(timed, functools.partial(testbed.exact, 7))
        theirs = functools.partial(timed, functools.partial(hugging_face_gradient, testbed, 7))
        few = repeats if count < 2000 else 1
        rows.append(compare(name, "HF forward of every response", ours, theirs, few, QUICKER, None, bound_ms))
    return rows


def opacus_norms(testbed: QwenTestbed, rollout: Rollout) -> Callable[[], torch.Tensor]:
    """Squared score norms by opacus, which keeps the gradient of every sample."""
    from opacus import GradSampleModule

    model = GradSampleModule(copy.deepcopy(testbed.model).train(), loss_reduction="sum", strict=False)
    prompts = testbed.task.prompt_tokens(rollout.prompts).repeat_interleave(rollout.reward.shape[1], 0)
    rows = torch.cat([prompts, rollout.tokens[:, :-1]], 1)
    column = testbed.plain.column[rollout.tokens].clamp(min=0)[..., None]
    positions = torch.arange(rows.shape[1]).expand(len(rows), -1)

    def norms() -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        logits = model(input_ids=rows, use_cache=False, position_ids=positions).logits[:, prompts.shape[1] - 1 :]
        log_prob = torch.log_softmax(logits[..., testbed.plain.alphabet], -1).gather(-1, column)[..., 0]
        torch.where(rollout.mask, log_prob, 0.0).sum().backward()
        return sum(value.grad_sample.flatten(1).square().sum(1) for value in model.parameters())

    return norms


def row_gradient(testbed: QwenTestbed, rollout: Rollout, rows: torch.Tensor | slice) -> tuple[torch.Tensor, ...]:
    """Gradient of the summed log-probability of some responses, evaluated row by row."""
    prompts = testbed.task.prompt_tokens(rollout.prompts).repeat_interleave(rollout.reward.shape[1], 0)
    log_probs = testbed.plain.row_log_probs(testbed.named, prompts[rows], rollout.tokens[rows])
    return torch.autograd.grad(log_probs[rollout.mask[rows]].sum(), testbed.parameters())


def scores(repeats: int) -> list[dict]:
    """Score norms of a batch of 128 in five ways, two gradients of batches, and the scores of all 1,555 responses."""
    testbed = QwenTestbed()
    task = testbed.with_task(WordProblem(symmetric_group(3), (3,), 6))

    def sampled(prompts: int) -> Rollout:
        generator = torch.Generator().manual_seed(0)
        return testbed.rollout(testbed.task.draw(prompts, generator), 16, generator)

    rollout = sampled(8)
    assert (testbed.task.prompt_tokens(rollout.prompts)[:, -1] == EQUALS).all()

    def loop() -> torch.Tensor:
        each = (row_gradient(testbed, rollout, slice(row, row + 1)) for row in range(128))
        return torch.stack([sum(part.square().sum() for part in parts) for parts in each])

    def vmap() -> torch.Tensor:
        return testbed.scores(rollout).square().sum(-1)

    opacus, ghost = opacus_norms(testbed, rollout), functools.partial(testbed.squared_norms, rollout)
    for other in (loop, vmap, opacus):
        torch.testing.assert_close(other(), ghost(), rtol=1e-4, atol=1e-4)

    def cost(name, work, times, bound=None, bound_ms=None, batch=rollout):
        plain = functools.partial(row_gradient, testbed, batch, slice(None))
        ours, theirs = functools.partial(timed, work), functools.partial(timed, plain)
        return compare(name, "one plain backward of the batch", ours, theirs, times, COST, bound, bound_ms)

    def two_gradients(prompts: int) -> dict:
        batch = sampled(prompts)
        correct = torch.tensor(batch.reward.flatten() == 1)
        name = f"two gradients (correct, wrong), batch {len(correct)}"
        both = (correct, ~correct)
        return cost(name, lambda: [row_gradient(testbed, batch, rows) for rows in both], 5 * repeats, 1.1, batch=batch)

    return [
        cost("score norms, batch 128", ghost, 5 * repeats, 1.3),
        cost("score norms by opacus, batch 128", opacus, repeats),
        cost("score norms by vmap, batch 128", vmap, repeats),
        cost("score norms by a loop, batch 128", loop, repeats),
        two_gradients(8),
        two_gradients(32),
        cost("scores of all 1,555 responses", lambda: task.enumerate(7), repeats, None, 3000),
    ]


def run(repeats: int = 5) -> list[dict]:
    """All rows: name, baseline, ratio, its meaning and bound, repeats, and median milliseconds for information."""
    os.environ["TQDM_DISABLE"] = "1"
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [*oracle(repeats), *scores(repeats), *grpo_step(repeats)]


if __name__ == "__main__":
    for row in run():
        limit = f" (bound {row['bound']})" if row["bound"] else ""
        limit_ms = f" (bound {row['bound_ms']})" if row["bound_ms"] else ""
        print(f"{row['name']}: {row['ms']:.1f} ms{limit_ms}; {row['ratio']:.2f}{limit} {row['meaning']}, "
              f"{row['baseline']}: {row['baseline_ms']:.1f} ms; {row['repeats']} repeats")  # fmt: skip
