"""Unitary irreducible representations in closed form; nothing is decomposed numerically.

Cyclic groups: roots of unity. Dihedral groups: induced from the rotations, as real rotations and reflections.
Quaternion group: Pauli matrices. Symmetric groups: Young's orthogonal form. Alternating groups: the restriction of
Young's form, where a shape equal to its transpose splits in two by the associator, which sends every tableau to its
transpose. Every list starts with the trivial representation. Sources: James and Kerber, The Representation Theory of
the Symmetric Group, 1981, chapters 2 and 3; Serre, Linear Representations of Finite Groups, 1977, chapter 5.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Complex, Float, Int

Representation = Float[np.ndarray, "order d d"] | Complex[np.ndarray, "order d d"]
Tableau = tuple[tuple[int, int], ...]
"""A standard Young tableau as the cells (row, column) that hold 0, 1, ..., n-1."""


def cyclic_irreps(n: int) -> list[Representation]:
    """exp(2 pi i jk / n) for j = 0..n-1 at element k; real for j = 0 and j = n/2."""
    k = np.arange(n)
    root = np.exp(2j * np.pi * k / n)  # taken at jk modulo n, so that no rounding grows with jk
    values = [(-1.0) ** ((2 * j // n) * k) if 2 * j % n == 0 else root[j * k % n] for j in range(n)]
    return [value.reshape(n, 1, 1) for value in values]


def dihedral_irreps(n: int) -> list[Representation]:
    """Real irreps of the dihedral group on r^k (index k) and r^k s (index n + k): the linear ones, then dimension 2."""
    k = np.arange(n)
    signs = [(1.0, 1.0), (1.0, -1.0)] + ([(-1.0, 1.0), (-1.0, -1.0)] if n % 2 == 0 else [])
    linear = [np.concatenate([r**k, s * r**k]).reshape(2 * n, 1, 1) for r, s in signs]
    planar = []
    for j in range(1, (n + 1) // 2):
        angle = 2 * np.pi * (j * k % n) / n
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = np.stack([cos, -sin, sin, cos], -1).reshape(n, 2, 2)
        planar.append(np.concatenate([rotation, rotation @ np.diag([1.0, -1.0])]))
    return linear + planar


def quaternion_irreps() -> list[Representation]:
    """Four linear characters and one of dimension 2, on 1, -1, i, -i, j, -j, k, -k."""
    linear = [np.repeat([1.0, i, j, i * j], 2).reshape(8, 1, 1) for i, j in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    i, j = np.array([[1j, 0], [0, -1j]]), np.array([[0, 1], [-1, 0]])
    units = np.array([np.eye(2), i, j, i @ j])
    return [*linear, np.stack([units, -units], axis=1).reshape(8, 2, 2)]


def partitions(n: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Partitions of n in decreasing lexicographic order, so that (n), the trivial shape, comes first."""
    if n == 0:
        yield ()
    for first in range(n if largest is None else min(n, largest), 0, -1):
        for rest in partitions(n - first, first):
            yield (first, *rest)


def standard_tableaux(shape: tuple[int, ...]) -> list[Tableau]:
    """All standard Young tableaux of a shape: the largest entry sits in a corner, the rest is one cell smaller."""
    if sum(shape) == 0:
        return [()]
    tableaux = []
    for row, (length, below) in enumerate(itertools.pairwise((*shape, 0))):
        if length > below:
            smaller = (*shape[:row], length - 1, *shape[row + 1 :])
            tableaux += [(*tableau, (row, length - 1)) for tableau in standard_tableaux(smaller)]
    return tableaux


def young_generators(tableaux: list[Tableau]) -> Float[np.ndarray, "generators d d"]:
    """Young's orthogonal form of the adjacent transpositions (i, i+1), as matrices over the tableaux.

    With r the axial distance from i to i+1 in a tableau t, the transposition maps t to t / r plus
    sqrt(1 - 1/r^2) times the tableau with i and i+1 exchanged.
    """
    index = {tableau: position for position, tableau in enumerate(tableaux)}
    n, d = len(tableaux[0]), len(tableaux)
    generators = np.zeros((n - 1, d, d))
    for column, tableau in enumerate(tableaux):
        content = [right - down for down, right in tableau]
        for i in range(n - 1):
            distance = content[i + 1] - content[i]
            generators[i, column, column] = 1 / distance
            if abs(distance) > 1:
                exchanged = (*tableau[:i], tableau[i + 1], tableau[i], *tableau[i + 2 :])
                generators[i, index[exchanged], column] = np.sqrt(1 - 1 / distance**2)
    return generators


def bubble_sort_word(permutation: Int[np.ndarray, " n"]) -> tuple[int, ...]:
    """A shortest word of adjacent transpositions (i, i+1) whose product is the permutation i -> permutation[i]."""
    images = list(permutation)
    word: list[int] = []
    # Right multiplication by (i, i+1) exchanges the images at i and i+1; undoing descents spells the word backwards.
    for end in range(len(images) - 1, 0, -1):
        for i in range(end):
            if images[i] > images[i + 1]:
                images[i], images[i + 1] = images[i + 1], images[i]
                word.append(i)
    return tuple(reversed(word))


def word_matrices(tableaux: list[Tableau], words: list[tuple[int, ...]]) -> Representation:
    """Young's orthogonal form of group elements given as words in the adjacent transpositions."""
    generators, identity = young_generators(tableaux), np.eye(len(tableaux))
    return np.stack([functools.reduce(np.matmul, generators[list(word)], identity) for word in words])


def symmetric_irreps(permutations: Int[np.ndarray, "order n"]) -> list[Representation]:
    """Real irreps of S_n, one for each partition of n, at the permutations given."""
    words = [bubble_sort_word(permutation) for permutation in permutations]
    return [word_matrices(standard_tableaux(shape), words) for shape in partitions(permutations.shape[1])]


def alternating_irreps(permutations: Int[np.ndarray, "order n"]) -> list[Representation]:
    """Irreps of A_n, one for each pair of transposed shapes and two for each shape equal to its transpose."""
    n = permutations.shape[1]
    words = [bubble_sort_word(permutation) for permutation in permutations]
    if n == 1:
        return [np.ones((1, 1, 1))]
    irreps = []
    for shape in partitions(n):
        transposed = tuple(sum(length > column for length in shape) for column in range(shape[0]))
        tableaux = standard_tableaux(shape)
        if shape > transposed:
            irreps.append(word_matrices(tableaux, words))
        elif shape == transposed:
            matrices = word_matrices(tableaux, words)
            irreps += [half.conj().T @ matrices @ half for half in transpose_eigenvectors(tableaux)]
    return irreps


def transpose_eigenvectors(
    tableaux: list[Tableau],
) -> list[Float[np.ndarray, "d half"] | Complex[np.ndarray, "d half"]]:
    """Orthonormal bases of the two eigenspaces of the associator T of a shape equal to its transpose.

    T sends a tableau t to sign(t) t', where t' is the transposed tableau and sign(t) the sign of the permutation that
    reads t row by row. It commutes with even permutations, anticommutes with transpositions, and T^2 is 1 or -1.
    """
    index = {tableau: position for position, tableau in enumerate(tableaux)}
    sign = [(-1) ** len(bubble_sort_word(np.argsort([t.index(cell) for cell in sorted(t)]))) for t in tableaux]
    partner = [index[tuple((column, row) for row, column in tableau)] for tableau in tableaux]
    first = np.flatnonzero(np.arange(len(partner)) < partner)
    second, column = np.array(partner)[first], np.arange(len(first))
    eigenvalue = 1.0 if sign[first[0]] == sign[second[0]] else 1j
    bases = []
    for root in (eigenvalue, -eigenvalue):
        basis = np.zeros((len(tableaux), len(first)), dtype=type(root))
        basis[first, column] = 1 / np.sqrt(2)
        basis[second, column] = root * np.array(sign)[first] / np.sqrt(2)
        bases.append(basis)
    return bases
