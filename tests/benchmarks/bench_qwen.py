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
    """A step of 16 responses a prompt against TRL's, and against the floor of its own matrix products."""
    task = WordProblem(symmetric_group(3), (5,), 6)
    testbed = QwenTestbed(alphabet="vocabulary").with_task(task)
    rows = [floor_row("GRPO step, 32 x 16, at the warm start", testbed, 32, repeats, 3.0)]
    for when, steps in (("at the warm start", 0), ("100 steps later", 100)):
        train(testbed, functools.partial(task.draw, 8), GRPO(), steps, 1)
        name = f"GRPO step, 8 x 16, {when}"
        ours = functools.partial(step_time, testbed, 8, STEPS)
        rows.append(compare(name, "TRL GRPOTrainer", ours, trl_step(testbed), repeats, QUICKER, 2.5))
        rows.append(floor_row(name, testbed, 8, repeats))
    return rows


def step_time(testbed: QwenTestbed, prompts: int, steps: int) -> float:
    """Median seconds of our step at learning rate 0."""
    settings, ticks = GRPO(optimizer="adamw", learning_rate=0.0), []
    draw = functools.partial(testbed.task.draw, prompts)
    train(testbed, draw, settings, steps, 0, lambda _: ticks.append(time.perf_counter()))
    return statistics.median(np.diff(ticks)) if steps > 1 else 0.0


def floor_row(name: str, testbed: QwenTestbed, prompts: int, repeats: int, bound: float | None = None) -> dict:
    """Our step against the time its floating-point operations take at the rate of a large matrix product."""
    with FlopCounterMode(display=False) as counter:
        step_time(testbed, prompts, 1)
    square = torch.randn(1024, 1024)
    rate = 2 * 1024**3 / min(timed(lambda: square @ square) for _ in range(10))
    million = counter.get_total_flops() / 1e6
    floor = functools.partial(float, 1e6 * million / rate)
    baseline = f"its matrix products, {million:.0f} MFLOP at {rate / 1e9:.0f} GFLOP/s"
    return compare(name, baseline, functools.partial(step_time, testbed, prompts, STEPS), floor, repeats, COST, bound)


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


def other_norms(testbed: QwenTestbed, rollout, prompts: torch.Tensor, tokens: torch.Tensor) -> dict[str, Callable]:
    """Three other ways to the squared score norms of a batch, each of which agrees with ours."""
    from opacus.grad_sample import GradSampleModule

    plain, named, mask = testbed.plain, testbed.named, rollout.mask
    wrapped = GradSampleModule(copy.deepcopy(testbed.model).train(), loss_reduction="sum")

    def loop() -> torch.Tensor:
        norms = []
        for row in torch.arange(len(tokens))[:, None]:
            log_prob = plain.row_log_probs(named, prompts[row], tokens[row])[mask[row]].sum()
            norms.append(sum((g**2).sum() for g in torch.autograd.grad(log_prob, testbed.parameters())))
        return torch.stack(norms)

    def log_prob(parameters, prompt, response, used) -> torch.Tensor:
        return torch.where(used, plain.row_log_probs(parameters, prompt[None], response[None])[0], 0.0).sum()

    def vmap() -> torch.Tensor:
        detached = {name: value.detach() for name, value in named.items()}
        score = torch.func.vmap(torch.func.grad(log_prob), (None, 0, 0, 0))(detached, prompts, tokens, mask)
        return sum((g.flatten(1) ** 2).sum(1) for g in score.values())

    def opacus() -> torch.Tensor:
        wrapped.zero_grad()
        logits = wrapped(torch.cat([prompts, tokens[:, :-1]], 1)).logits[:, prompts.shape[1] - 1 :]
        log_probs = logits - logits[..., plain.alphabet].logsumexp(-1, keepdim=True)
        torch.where(mask, log_probs.gather(-1, tokens[..., None])[..., 0], 0.0).sum().backward()
        return sum((value.grad_sample.flatten(1) ** 2).sum(1) for value in wrapped.parameters())

    found = {"a loop of backward passes": loop, "torch.func.vmap of the gradient": vmap, "Opacus": opacus}
    for norms in found.values():
        ours = np.asarray(testbed.squared_norms(rollout)).ravel()
        np.testing.assert_allclose(norms().detach().numpy(), ours, rtol=1e-4)
    return found


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

    one, ours = "one plain backward of the batch", lambda: timed(lambda: testbed.squared_norms(rollout))
    others = [
        compare("score norms, batch 128", name, ours, functools.partial(timed, norms), repeats, QUICKER, None)
        for name, norms in other_norms(testbed, rollout, *inputs).items()
    ]
    return [
        *others,
        compare("score norms, batch 128", one, ours, plain, 5 * repeats, COST, 1.3),
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
