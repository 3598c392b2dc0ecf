"""What each process of the two-process tests runs: two steps on stored responses, then scores of a sharded model.

``torchrun --nproc_per_node 2 two_processes.py FOLDER`` reads ``FOLDER/rollout.pt`` and writes what it logged, and the
gradient and parameters, to ``FOLDER/<processes>.pt``.
"""

import os
import sys
import warnings
from pathlib import Path

import torch

warnings.simplefilter("error")
warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
torch.set_num_threads(1)

from trl_runs import Replay, build, warm  # noqa: E402

from rlvr_lib.testbeds.grpo import flat  # noqa: E402
from rlvr_lib.trl import MeasuredGRPOTrainer  # noqa: E402
from rlvr_lib.trl.scores import Sampled, choose, is_sharded, score_sums  # noqa: E402
from rlvr_lib.trl.tasks import TrainingTask, group_task  # noqa: E402


class Noting(MeasuredGRPOTrainer):
    """Keeps the gradient that all processes share."""

    def before_update(self):
        self.gradient = flat([value.grad for value in self._trained()])
        super().before_update()


def main(folder: Path) -> None:
    from datasets import Dataset

    stored, processes = torch.load(folder / "rollout.pt"), int(os.environ["WORLD_SIZE"])
    testbed = warm()
    task = group_task(testbed.task, rows=1)
    task = TrainingTask(Dataset.from_dict(stored["data"]), task.reward, testbed.task.width + 1)
    replay = Replay(stored["prompts"], stored["tokens"], stored["mask"])
    rows = len(stored["prompts"])
    trainer = build(
        Noting, testbed, rows // stored["group_size"], stored["group_size"], 2, 0.05, task,
        {"shuffle_dataset": False, "per_device_train_batch_size": rows // processes, "loss_type": stored["loss_type"]},
        rollout_func=replay,
    )  # fmt: skip
    assert trainer.accelerator.num_processes == processes == torch.distributed.get_world_size()
    trainer.train()
    if trainer.is_world_process_zero():
        logs = [
            {name: value for name, value in entry.items() if name.startswith("rlvr/")}
            for entry in trainer.state.log_history[:-1]
        ]
        kept = {"logs": logs, "gradient": trainer.gradient, "parameters": flat(testbed.parameters())}
        torch.save(kept, folder / f"{processes}.pt")
    if processes > 1:
        sharded_scores(replay)
    trainer.accelerator.end_training()


def sharded_scores(replay: Replay) -> None:
    """With parameters in pieces (FSDP2) the head is chosen, and its scores are those of the whole model."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole, model = warm().model, warm().model
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    sampled = Sampled(replay.prompts, torch.ones_like(replay.prompts), replay.tokens[0], replay.mask[0].long())
    weights, scored = torch.eye(len(sampled)), choose(model)
    assert is_sharded(model)
    assert scored.choice == "head"
    expected = score_sums(whole, sampled, weights, choose(whole, "head"))
    for found, right in zip(score_sums(model, sampled, weights, scored), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
