"""Times of the Qwen testbed on one core, each against a named baseline measured in the same run.

Repeats alternate between the two, and a ratio is the median over repeats, so that a busy machine slows both alike.
"""

from __future__ import annotations

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

from rlvr_lib.groups import symmetric_group
from rlvr_lib.testbeds.grpo import GRPO, one_thread, train
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.tasks import EQUALS, PAD, WordProblem

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
    """A step of 8 prompts x 16 responses, and its distance from the floor of its matrix products."""
    task = WordProblem(symmetric_group(3), (5,), 6)
    testbed = QwenTestbed(alphabet="vocabulary").with_task(task)
    settings = GRPO(optimizer="adamw", learning_rate=0.0)

    def draw(generator: torch.Generator) -> tuple[int, ...]:
        return task.draw(8, generator)

    def run(steps: int) -> None:
        ticks.clear()
        train(testbed, draw, settings, steps, 0, lambda _: ticks.append(time.perf_counter()))

    def ours() -> float:
        run(STEPS)
        return statistics.median(np.diff(ticks))

    ticks: list[float] = []
    square, rows = torch.randn(1024, 1024), []
    for when, steps in (("at the warm start", 0), ("100 steps later", 100)):
        train(testbed, draw, GRPO(), steps, 1)
        name = f"GRPO step, 8 x 16, {when}"
        rows.append(compare(name, "TRL GRPOTrainer", ours, trl_step(testbed), repeats, QUICKER, 2.5))
        with FlopCounterMode(display=False) as counter:
            run(1)
        rate = 2 * 1024**3 / min(timed(lambda: square @ square) for _ in range(10))
        million = counter.get_total_flops() / 1e6
        floor = functools.partial(float, 1e6 * million / rate)
        baseline = f"its matrix products, {million:.0f} MFLOP at {rate / 1e9:.0f} GFLOP/s"
        rows.append(compare(name, baseline, ours, floor, repeats, COST, None))
    return rows


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


def scores(repeats: int) -> list[dict]:
    """Scores and score norms of a batch of 128, and the scores of all 1,555 responses."""
    testbed = QwenTestbed()
    task = testbed.with_task(WordProblem(symmetric_group(3), (3,), 6))
    generator = torch.Generator().manual_seed(0)
    rollout = testbed.rollout(testbed.task.draw(8, generator), 16, generator)
    inputs = testbed.task.prompt_tokens(rollout.prompts).repeat_interleave(16, 0), rollout.tokens
    assert (inputs[0][:, -1] == EQUALS).all()

    def plain() -> float:
        def backward():
            log_prob = testbed.plain.row_log_probs(testbed.named, *inputs)[rollout.mask].sum()
            torch.autograd.grad(log_prob, testbed.parameters())

        return timed(backward)

    def all_scores() -> float:
        return timed(lambda: task.enumerate(7))

    one = "one plain backward of the batch"
    return [
        compare("score norms, batch 128", one, lambda: timed(lambda: testbed.squared_norms(rollout)), plain,
                5 * repeats, COST, 1.3),
        compare("scores, batch 128", one, lambda: timed(lambda: testbed.scores(rollout)), plain, repeats, COST, None),
        compare("scores of all 1,555 responses", one, all_scores, plain, repeats, COST, None, 3000),
    ]  # fmt: skip


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
