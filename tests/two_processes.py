"""What each process of the two-process tests runs: one step on stored responses, or one of FSDP2.

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
from rlvr_lib.trl_tasks import TrainingTask, group_task  # noqa: E402


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
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
