"""P2's own experiment, rebuilt: chains over Z_96, a frozen pre-trained head, attention trained from its end reward.

A prompt holds h clauses "name m carries the element g" and asks for them in a given order; names and elements are
drawn without repetition, and the context is the chain. Step l attends to the clauses with logits Q[name_l, name_m],
mixes their values, and a frozen two-layer network, trained beforehand on all order^2 products, turns the mixture and
the running product into logits of the next one. Only Q is trained, from zero, by REINFORCE with a moving-average
baseline and an entropy bonus. ``rlvr z96`` runs it, with checkpoints from which the next update is the same.

Source: arXiv 2602.14872 v1 and the settings of its public reproduction; neither code was used. What neither
states is chosen here: Adam at 0.01, 64 names, 128 hidden units, one value a clause, the entropy averaged over steps.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from rlvr_lib.arguments import closed_interval, integer, non_negative, positive, require
from rlvr_lib.files import write_whole
from rlvr_lib.testbeds.checkpoint import load_tensors, restore_training, save_tensors, training_tensors
from rlvr_lib.testbeds.grpo import one_thread
from rlvr_lib.theory.groups import alternating_group, cyclic_group, dihedral_group, symmetric_group

CHECKPOINT, METRICS, REPORT = "checkpoint.safetensors", "metrics.jsonl", "report.json"
VISIBLE, MASTERED = 0.01, 0.99
CURVES = ("greedy", "sampled", "right_paths", "right_steps")
GROUPS = {"Z": cyclic_group, "D": dihedral_group, "S": symmetric_group, "A": alternating_group}
Head = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """What is trained; the defaults are the published ones where they are known.

    Attributes:
        horizons: lengths of the chains; each prompt's is drawn uniformly.
        group: Zn (cyclic), Dn (dihedral, of order 2n), Sn or An (symmetric, alternating).
        names: size of the table of names, at least the longest horizon.
        batch: prompts an update, one response each.
        learning_rate, baseline_decay: of Adam, and of the moving average of the reward.
        entropy_bonus: weight of the mean entropy of a step.
        hidden, head_steps: units of the frozen head, Adam steps of its pre-training on all order^2 products at once.
        evaluate_every: updates between evaluations, at which also a checkpoint is written.
        evaluation_prompts: fresh prompts of each horizon at an evaluation.
    """

    horizons: tuple[int, ...] = (5, 15, 45)
    group: str = "Z96"
    names: int = 64
    batch: int = 512
    learning_rate: float = 0.01
    baseline_decay: float = 0.95
    entropy_bonus: float = 1e-3
    hidden: int = 128
    head_steps: int = 300
    evaluate_every: int = 200
    evaluation_prompts: int = 512

    def __post_init__(self) -> None:
        horizons = tuple(sorted(integer("horizons", horizon, low=1) for horizon in self.horizons))
        distinct = 0 < len(horizons) == len(set(horizons))
        require(distinct, "horizons", self.horizons, "at least one length, none of them twice")
        object.__setattr__(self, "horizons", horizons)
        known = re.fullmatch(rf"[{''.join(GROUPS)}][1-9]\d*", self.group) is not None
        require(known, "group", self.group, f"one of {', '.join(GROUPS)} and a degree, such as Z96 or A5")
        integer("order", self.order, low=max(2, horizons[-1]))
        integer("names", self.names, low=horizons[-1])
        for name in ("batch", "hidden", "head_steps", "evaluate_every", "evaluation_prompts"):
            integer(name, getattr(self, name), low=1)
        positive("learning_rate", self.learning_rate)
        non_negative("entropy_bonus", self.entropy_bonus)
        closed_interval("baseline_decay", self.baseline_decay, 0, 1)

    @property
    def order(self) -> int:
        """n, the number of elements of the group."""
        return len(_tables(self.group)[0])


@functools.cache
def _tables(group: str) -> tuple[Int[torch.Tensor, "n n"], Int[torch.Tensor, "n n"]]:
    """Products x y at [x, y], and at [x, z] the element y with x y = z."""
    products = torch.tensor(GROUPS[group[0]](int(group[1:])).table)
    return products, products.argsort(1)


class Chains(NamedTuple):
    """b prompts of one horizon: names and elements of the clauses in the order asked for, first and last product."""

    name: Int[torch.Tensor, "b h"]
    element: Int[torch.Tensor, "b h"]
    start: Int[torch.Tensor, " b"]
    target: Int[torch.Tensor, " b"]


def draw_chains(settings: Settings, count: int, horizon: int, generator: torch.Generator) -> Chains:
    """Random prompts of one horizon."""
    name, element = (
        torch.rand(count, size, generator=generator).argsort(1)[:, :horizon]
        for size in (settings.names, settings.order)
    )
    start = torch.randint(settings.order, (count,), generator=generator)
    products, target = _tables(settings.group)[0], start
    for used in element.T:
        target = products[target, used]
    return Chains(name, element, start, target)


def pretrain_head(settings: Settings, seed: int, progress: bool = False) -> dict[str, torch.Tensor]:
    """Weights of the head after training on every product of two elements, given one-hot."""
    order, generator = settings.order, torch.Generator().manual_seed(seed)
    left, right = torch.arange(order**2) // order, torch.arange(order**2) % order
    products = _tables(settings.group)[0].flatten()
    running, clause = (torch.randn(order, settings.hidden, generator=generator) / 2 for _ in range(2))
    output = torch.randn(settings.hidden, order, generator=generator) / settings.hidden**0.5
    head = {"running": running.requires_grad_(), "clause": clause.requires_grad_(), "output": output.requires_grad_()}
    optimizer = torch.optim.Adam(head.values(), lr=0.02, fused=True)
    for step in tqdm(range(settings.head_steps), "head", disable=not progress):
        optimizer.param_groups[0]["lr"] = 0.02 * min(1.0, 2 * (1 - step / settings.head_steps))
        logits = torch.relu(running[left] + clause[right]) @ output
        optimizer.zero_grad()
        cross_entropy(logits, products).backward()
        optimizer.step()
    wrong = int((logits.argmax(1) != products).sum())
    require(wrong == 0, "head_steps", settings.head_steps, f"enough to learn every product ({wrong} are wrong)")
    return {name: weight.detach() for name, weight in head.items()}


def attend(
    query: Float[torch.Tensor, "N N"], head: Head, chains: Chains
) -> tuple[Float[torch.Tensor, "b h hidden"], Float[torch.Tensor, "b h h"]]:
    """What every step adds to the hidden units, and its attention over the clauses; neither depends on the product."""
    place = chains.name[:, :, None] * len(query) + chains.name[:, None, :]
    attention = query.flatten()[place].softmax(-1)
    return attention @ head["clause"][chains.element], attention


def respond(
    read: Float[torch.Tensor, "b h hidden"], head: Head, chains: Chains, generator: torch.Generator | None
) -> Int[torch.Tensor, "b h+1"]:
    """Running products, the start first: sampled, or without a generator the likeliest one at every step."""
    products = [chains.start]
    for step in range(read.shape[1]):
        logits = torch.relu(read[:, step] + head["running"][products[-1]]) @ head["output"]
        if generator is None:
            products.append(logits.argmax(-1))
        else:
            cumulative = logits.softmax(-1).cumsum(-1)
            threshold = torch.rand(len(logits), 1, generator=generator) * cumulative[:, -1:]
            products.append(torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[1] - 1))
    return torch.stack(products, 1)


class Run:
    """The state of one run: Q, Adam's moments, the baseline, the generator and what was measured so far."""

    def __init__(self, settings: Settings, seed: int, head: Head):
        self.settings, self.seed, self.head = settings, integer("seed", seed, low=0), head
        self.query = torch.zeros(settings.names, settings.names, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.query], lr=settings.learning_rate, fused=True)
        self.generator = torch.Generator().manual_seed(seed)
        self.baseline, self.updates = 0.0, 0
        self.records: list[dict[str, Any]] = []

    def update(self) -> None:
        """One update on a fresh batch, each of its prompts of a random horizon."""
        s = self.settings
        choice = torch.randint(len(s.horizons), (s.batch,), generator=self.generator)
        loss, earned = torch.zeros(()), 0.0
        for index, horizon in enumerate(s.horizons):
            chains = draw_chains(s, int((choice == index).sum()), horizon, self.generator)
            read, _ = attend(self.query, self.head, chains)
            with torch.no_grad():
                products = respond(read, self.head, chains, self.generator)
            reward = (products[:, -1] == chains.target).float()
            hidden = torch.relu(read + self.head["running"][products[:, :-1]])
            log_law = (hidden @ self.head["output"]).log_softmax(-1)
            taken = log_law.gather(-1, products[:, 1:, None])[..., 0].sum(1)
            entropy = -(log_law.exp() * log_law).sum(-1).mean(1)
            loss = loss - ((reward - self.baseline) * taken + s.entropy_bonus * entropy).sum() / s.batch
            earned += float(reward.sum()) / s.batch
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.baseline = s.baseline_decay * self.baseline + (1 - s.baseline_decay) * earned
        self.updates += 1

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Per horizon: greedy and sampled success, and attention to the right clause.

        Of greedy responses also how many paths and steps are right, and how many are permutations, which use every
        clause of the prompt once, in any order. The prompts are drawn from the seed and the number of updates, so that
        evaluating does not disturb the run.
        """
        s = self.settings
        record: dict[str, Any] = {"updates": self.updates}
        generator = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + self.updates)
        for horizon in s.horizons:
            chains = draw_chains(s, s.evaluation_prompts, horizon, generator)
            read, attention = attend(self.query, self.head, chains)
            sampled = respond(read, self.head, chains, generator)
            greedy = respond(read, self.head, chains, None)
            used = _tables(s.group)[1][greedy[:, :-1], greedy[:, 1:]]
            right = used == chains.element
            measured = {
                "greedy": greedy[:, -1] == chains.target,
                "sampled": sampled[:, -1] == chains.target,
                "right_paths": right.all(1),
                "right_steps": right,
                "permutations": (used.sort(1).values == chains.element.sort(1).values).all(1),
                "attention": attention.diagonal(dim1=1, dim2=2),
            }
            for name, values in measured.items():
                record.setdefault(name, []).append(round(float(values.float().mean()), 6))
        return record

    def save(self, path: Path) -> None:
        """Write the whole state, atomically."""
        tensors = training_tensors([self.query], self.optimizer, self.generator)
        tensors |= {f"head.{name}": weight for name, weight in self.head.items()}
        info = {"settings": dataclasses.asdict(self.settings), "seed": self.seed, "records": self.records}
        save_tensors(path, tensors, info | {"updates": self.updates, "baseline": self.baseline})

    @classmethod
    def load(cls, path: Path) -> Run:
        """The state that ``save`` wrote."""
        tensors, info = load_tensors(path)
        known = info.get("settings", {}).keys() == {field.name for field in dataclasses.fields(Settings)}
        require(known, str(path), info.get("settings"), "a checkpoint of this command")
        head = {name.removeprefix("head."): x for name, x in tensors.items() if name.startswith("head.")}
        run = cls(Settings(**info["settings"]), info["seed"], head)
        restore_training(tensors, [run.query], run.optimizer, run.generator)
        run.updates, run.baseline, run.records = info["updates"], info["baseline"], info["records"]
        return run


def train(settings: Settings, seed: int, updates: int, out: Path, progress: bool = True) -> dict[str, Any]:
    """Run to a number of updates, from the checkpoint in the folder if there is one; returns the report.

    Evaluations write ``checkpoint.safetensors`` and ``metrics.jsonl``, the end ``report.json``: each whole or absent.
    """
    updates, path = integer("updates", updates, low=1), out / CHECKPOINT
    with one_thread():
        if path.exists():
            run = Run.load(path)
            fits = (run.settings, run.seed) == (settings, seed)
            require(fits, str(path), f"{run.settings}, seed {run.seed}", f"a checkpoint of {settings}, seed {seed}")
            require(run.updates <= updates, "updates", updates, f"at least the {run.updates} of the checkpoint")
        else:
            run = Run(settings, seed, pretrain_head(settings, seed, progress))
            run.records.append(run.evaluate())
        left = range(run.updates, updates)
        bar = tqdm(left, settings.group, updates, mininterval=1.0, initial=run.updates, disable=not progress)
        for _ in bar:
            run.update()
            if run.updates % settings.evaluate_every == 0 or run.updates == updates:
                run.records.append(run.evaluate())
                bar.set_postfix_str(" ".join(f"{p:.3f}" for p in run.records[-1]["greedy"]), refresh=False)
                lines = (json.dumps(record, sort_keys=True) + "\n" for record in run.records)
                write_whole(out / METRICS, "".join(lines).encode())
                run.save(path)
    report = summarise(settings, seed, run.records)
    write_whole(out / REPORT, (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
    return report


def summarise(settings: Settings, seed: int, records: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """The curves of a run and, per horizon, the first evaluation at which greedy success is visible and mastered.

    Visible is 0.01 and mastered 0.99, as printed; since 0.01 is below the chance of 1/96, ``visible_above_chance``
    also gives the first evaluation with y >= 0.1. None: never.
    """
    curves = {name: [record[name] for record in records] for name in ("updates", *CURVES)}
    greedy = np.array(curves["greedy"])

    def first(reached: np.ndarray) -> list[int | None]:
        return [curves["updates"][column.argmax()] if column.any() else None for column in reached.T]

    return {
        "horizons": list(settings.horizons),
        "group": settings.group,
        "order": settings.order,
        "seed": seed,
        "updates": curves["updates"][-1],
        "final": {name: value for name, value in records[-1].items() if name != "updates"},
        "visible": first(greedy >= VISIBLE),
        "mastered": first(greedy >= MASTERED),
        "visible_above_chance": first((settings.order * greedy - 1) / (settings.order - 1) >= 0.1),
        "curves": curves,
    }


def collect(folders: Sequence[Path]) -> dict[str, object]:
    """Settings and report of every run in these folders, as far as its checkpoint goes; ``final`` is evaluated anew."""
    runs = []
    for folder in folders:
        run = Run.load(folder / CHECKPOINT)
        report = summarise(run.settings, run.seed, [*run.records[:-1], run.evaluate()])
        runs.append({"settings": dataclasses.asdict(run.settings), **report})
    return {"runs": runs}
