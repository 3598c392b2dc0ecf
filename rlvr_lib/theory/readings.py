"""Chains read in any order: success of an attention pattern from breakpoint graphs and permanents (theorem 3, 3b).

A policy that multiplies the clauses of a chain in the order pi is still right with a probability that depends on the
group's dimensions and on the cycles of the breakpoint graph of pi; on an abelian group it is always right.

>>> from rlvr_lib import attention_success, cyclic_group, symmetric_group
>>> swap = [[0, 1], [1, 0]]  # reads the second clause first
>>> attention_success(cyclic_group(5), swap), attention_success(symmetric_group(3), swap)
(1.0, 0.5)
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, integer, probability_law, real_array, require, whole_numbers
from rlvr_lib.theory.groups import FiniteGroup

LARGEST_ENUMERATION = 9  # sums over all permutations go up to 9! = 362,880 of them
LARGEST_PERMANENT = 22  # permanents go up to 22 rows, 2^22 partial sums


def breakpoint_cycles(permutations: ArrayLike) -> Int[np.ndarray, "*batch"]:
    """Number of cycles of the breakpoint graph of each permutation, counting those of the identity as h + 1.

    It is the number of cycles of (0 1 ... h) composed with (0 pi_h ... pi_1). Source: Hultman, Toric permutations,
    1999; Doignon and Labarre, On Hultman numbers, Journal of Integer Sequences 10, 2007.

    >>> breakpoint_cycles([[0, 1, 2], [1, 0, 2], [2, 1, 0]]).tolist()
    [4, 2, 2]

    Args:
        permutations: [..., h], each row a permutation of 0..h-1.
    """
    permutations = whole_numbers("permutations", permutations, low=0).astype(np.int64)
    require(permutations.ndim >= 1, "permutations", permutations, "an array of integers [..., h]")
    *batch, h = permutations.shape
    ordered = bool((np.sort(permutations, axis=-1) == np.arange(h)).all())
    require(ordered, "permutations", permutations, "permutations of 0..h-1 in every row")
    closed = np.pad(permutations.reshape(math.prod(batch), h) + 1, ((0, 0), (0, 1)))
    images = np.empty_like(closed)
    np.put_along_axis(images, closed, (np.roll(closed, 1, axis=1) + 1) % (h + 1), axis=1)
    smallest = np.broadcast_to(np.arange(h + 1), images.shape)  # of each cycle, found by doubling the step
    for _ in range((h + 1).bit_length()):
        smallest = np.minimum(smallest, np.take_along_axis(smallest, images, axis=1))
        images = np.take_along_axis(images, images, axis=1)
    return (smallest == np.arange(h + 1)).sum(axis=1).reshape(batch)


def all_permutations(h: int) -> Int[np.ndarray, "permutations h"]:
    """[h!, h], the permutations of 0..h-1 in lexicographic order; h from 0 to 9."""
    h = integer("h", h, low=0)
    require(h <= LARGEST_ENUMERATION, "h", h, f"at most {LARGEST_ENUMERATION}")
    return np.array(list(itertools.permutations(range(h))), dtype=np.int64).reshape(math.factorial(h), h)


def permanent(matrix: ArrayLike) -> float:
    """Sum over permutations pi of the product over rows l of matrix[l, pi(l)], for up to 22 rows.

    Adds over the sets of columns used so far, h^2 2^(h-1) multiplications; no subtraction, so a non-negative matrix
    keeps full relative accuracy, which Ryser's formula does not.

    >>> permanent([[1, 2], [3, 4]])
    10.0
    """
    matrix = real_array("matrix", matrix, ndim=2)
    h = len(matrix)
    square = matrix.shape == (h, h) and h <= LARGEST_PERMANENT
    require(square, "matrix", f"shape {matrix.shape}", f"square with at most {LARGEST_PERMANENT} rows")
    used = np.zeros((2,) * h)  # one axis a column: 1 where an earlier row has taken it
    used[(0,) * h] = 1.0
    for row in matrix:
        taken = np.zeros_like(used)
        for column, entry in enumerate(row):
            np.moveaxis(taken, column, 0)[1] += entry * np.moveaxis(used, column, 0)[0]
        used = taken
    return float(used[(1,) * h])


def reading_success(group: FiniteGroup, permutations: ArrayLike) -> Reals:
    """N_pi: probability that uniform i.i.d. clauses multiplied in the order pi give the same product as in their own.

    (1/n) sum over irreps of d^(2 - 2g), 2g = h + 1 minus the cycles of the breakpoint graph: 1 for the identity and on
    abelian groups (3b, derived here from the formula of Frobenius and Mednykh).

    Args:
        group: of order n.
        permutations: [..., h], each row a permutation of 0..h-1, the clause read at each step.
    """
    cycles = breakpoint_cycles(permutations)
    twice_genus = np.shape(permutations)[-1] + 1 - cycles
    return (group.dimensions.astype(np.float64) ** (2.0 - twice_genus[..., None])).sum(-1)[()] / group.order


def attention_success(group: FiniteGroup, attention: ArrayLike) -> float:
    """Exact success when step l does the clause that row l of ``attention`` draws, for uniform i.i.d. clauses (3b).

    1/n + sum over permutations pi of prod_l A[l, pi(l)] (N_pi - 1/n); on abelian groups 1/n + (1 - 1/n) perm(A).

    Args:
        group: of order n.
        attention: [h, context], rows are probability laws over the context; its first h clauses are the chain.
            h is at most 9, on abelian groups 22.
    """
    attention = real_array("attention", attention, ndim=2)
    h, context = attention.shape
    require(context >= h, "attention", f"shape {attention.shape}", "[h, context] with context at least h")
    longest = LARGEST_PERMANENT if group.is_abelian else LARGEST_ENUMERATION
    require(h <= longest, "attention", f"{h} rows", f"of at most {longest} rows on this group")
    chain = np.array([probability_law("attention", row, (context,))[:h] for row in attention]).reshape(h, h)
    if group.is_abelian:
        return 1 / group.order + (1 - 1 / group.order) * permanent(chain)
    permutations = all_permutations(h)
    weight = chain[np.arange(h), permutations].prod(axis=1)
    return float(1 / group.order + weight @ (reading_success(group, permutations) - 1 / group.order))
