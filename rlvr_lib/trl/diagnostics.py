"""The book's quantities in a loop of your own: no trainer, no tokenizer, only log-probabilities and rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float

from rlvr_lib.arguments import positive, require
from rlvr_lib.trl.rollouts import Move, Rollouts, along_read, success_of
from rlvr_lib.trl.step import Scores, Values, jackknife


class GroupDiagnostics:
    """What the theory says of one batch: P prompts with G responses each, group after group.

    Make one for every batch that is to be looked at, after its rollout. Prompts with fewer than two rewards are left
    out. Nothing here changes a parameter for good: what is moved is put back bit by bit.

    Args:
        log_prob: returns the log-probabilities of the P G responses, [P G], each the sum over its tokens, at the
            parameters as they are when it is called; differentiable by them, without dropout, at the temperature of
            the sampling.
        parameters: those that are trained. With respect to them scores are taken and updates are followed; a part of
            the model, such as its last layer, makes ``scores`` cheap, and ``along`` then follows that part only.
        reward: [P, G], 0 or 1, NaN for a response that was not scored; with ``threshold`` any number, and success is
            at least that.
        advantage: [P, G], what the loop multiplies the log-probabilities with, up to a common factor; the reward less
            the mean of its group when not given.
        threshold: of a success.

    Raises:
        ValueError: for another number of log-probabilities than rewards, rewards that are neither 0 nor 1 without a
            threshold, groups of one response, and where no group has two rewards.
    """

    def __init__(
        self,
        log_prob: Callable[[], torch.Tensor],
        parameters: Iterable[torch.Tensor],
        reward: torch.Tensor,
        advantage: torch.Tensor | None = None,
        threshold: float | None = None,
    ) -> None:
        require(reward.ndim == 2 and reward.shape[1] >= 2, "reward", f"shape {tuple(reward.shape)}", "[P, G], G >= 2")
        self.parameters = [value for value in parameters if value.requires_grad]
        require(bool(self.parameters), "parameters", "none that is trained", "at least one with requires_grad")
        success = success_of(reward.detach().flatten().double(), threshold)
        if advantage is not None:
            require(advantage.shape == reward.shape, "advantage", f"shape {tuple(advantage.shape)}", "that of reward")
        self._log_prob = log_prob
        empty = torch.zeros_like(success)
        self._rollouts = Rollouts(range(len(success)), success, 0, reward.shape[1], empty)
        centred = self._rollouts.centred() * (reward.shape[1] - 1)
        self._advantage = centred if advantage is None else advantage.detach().flatten().double()
        self._rollouts.groups()  # raises where no group has two rewards

    def copy(self) -> list[torch.Tensor]:
        """Copies of the parameters, to be taken before an update that ``along`` is to follow."""
        return [value.detach().clone() for value in self.parameters]

    def groups(self) -> Values:
        """Success rate, spread within prompts and dead groups, with errors, of the prompts that have two rewards."""
        groups = self._rollouts.groups()
        return _with_errors(groups.values(), jackknife(groups, len(groups.count)))

    def scores(self) -> Values:
        """Gap norm, SNR, noise scale, cosines, b* and the price of the mean of the others, with errors.

        Takes P G backward passes and keeps P gradients of the parameters twice.
        """
        rollouts, total = self._rollouts, self._read()
        width = sum(value.numel() for value in self.parameters)
        sums = torch.zeros(2, rollouts.prompts, width, dtype=torch.float64)
        weights = torch.stack([rollouts.centred(), self._advantage / rollouts.group_size]).nan_to_num().cpu()
        energy = torch.zeros(len(total), dtype=torch.float64)
        for row, group in enumerate(rollouts.group.tolist()):
            found = torch.autograd.grad(total[row], self.parameters, retain_graph=True, allow_unused=True)
            pairs = zip(found, self.parameters, strict=True)
            score = torch.cat([(torch.zeros_like(p) if g is None else g).flatten().double().cpu() for g, p in pairs])
            energy[row] = score.square().sum()
            sums[:, group] += weights[:, row, None] * score
        success, others = rollouts.local_success.cpu(), rollouts.mean_of_others().cpu()
        by_group = (energy * success, energy * (1 - success), energy * (success - others) ** 2)
        energies = [rollouts.sum_by_group(torch.where(success.isnan(), 0.0, value)) for value in by_group]
        grams = [(part @ part.T).numpy() for part in sums]
        scores = Scores(rollouts.every_group, *energies, *grams).part(rollouts.kept)
        return _with_errors(scores.values(), jackknife(scores, len(rollouts.kept)))

    def along(self, before: list[torch.Tensor], learning_rate: float) -> Values:
        """Alignment of an update with the gap, and its critical learning rate, with errors; None for undefined.

        The derivatives are those at the parameters before the update, from three evaluations of the
        log-probabilities. Flatters the update if these are the responses that made it; those of other prompts do not.

        Args:
            before: what ``copy`` returned before the update.
            learning_rate: that made it; the critical rate is in its unit.
        """
        fits = [value.shape for value in before] == [value.shape for value in self.parameters]
        require(fits, "before", f"{len(before)} tensors", "what copy returned, one for each parameter")
        move = Move(self.parameters, before)
        rate = float(positive("learning_rate", learning_rate))
        found = None if move.length == 0 else along_read(self._read, self._rollouts, move, rate)[0]
        if found is None:
            names = ("gap_alignment", "critical_learning_rate", "learning_rate_ratio")
            return dict.fromkeys(name + end for name in names for end in ("", "_error"))
        return _with_errors(found.values(), jackknife(found, len(found.slope)))

    def _read(self) -> Float[torch.Tensor, " B"]:
        total = self._log_prob()
        shape, rows = tuple(total.shape), len(self._rollouts.success)
        require(shape == (rows,), "log_prob", f"shape {shape}", f"[{rows}], one number for each reward")
        return total


def _with_errors(values: Values, errors: dict[str, float | None]) -> Values:
    return values | {f"{name}_error": error for name, error in errors.items()}
