"""Finite groups with exact irreducible representations: Fourier transform, convolution, classes.

>>> from rlvr_lib import symmetric_group
>>> group = symmetric_group(3)
>>> group
FiniteGroup(S_3, order 6)
>>> group.labels  # images of 1, 2, 3; the element's index is its place in this list, the identity is 0
('123', '132', '213', '231', '312', '321')
>>> group.labels[group.table[1, 2]]  # first 213, then 132: permutations compose as functions
'312'
>>> [irrep.shape for irrep in group.irreps]
[(6, 1, 1), (6, 2, 2), (6, 1, 1)]

A random walk whose steps are transpositions, each with probability 1/4, or nothing:

>>> import numpy as np
>>> step = np.array([1/4, 1/4, 1/4, 0, 0, 1/4])
>>> group.convolve_power(step, 2).round(4).tolist()
[0.25, 0.125, 0.125, 0.1875, 0.1875, 0.125]
>>> bool(np.allclose(group.convolve(step, step), group.convolve_power(step, 2)))
True
>>> [block.round(4).tolist() for block in group.fourier(step)]
[[[1.0]], [[0.25, 0.0], [0.0, 0.25]], [[-0.5]]]
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy.typing import ArrayLike

from rlvr_lib.arguments import integer, numbers, require
from rlvr_lib.theory import irreps as closed_forms
from rlvr_lib.theory.irreps import Representation

LARGEST_DEGREE = 5  # of symmetric and alternating groups: S_5 has order 120, A_5 order 60

GroupFunction = Float[np.ndarray, "*batch order"] | Complex[np.ndarray, "*batch order"]
Block = Float[np.ndarray, "*batch d d"] | Complex[np.ndarray, "*batch d d"]


@dataclass(frozen=True, eq=False)
class FiniteGroup:
    """A finite group by its Cayley table, with one unitary matrix representation of every irreducible class.

    Elements are indices, functions on the group are arrays whose last axis is [order]; leading axes are a batch.

    Attributes:
        name: such as ``S_3``.
        labels: [order] strings, what each element is.
        table: [order, order], table[a, b] = ab; element 0 is the identity.
        irreps: arrays [order, d, d], unitary, real where the construction allows; the trivial one comes first.
    """

    name: str
    labels: tuple[str, ...]
    table: Int[np.ndarray, "order order"]
    irreps: list[Representation]

    def __post_init__(self) -> None:
        elements, both = np.arange(self.order), np.array([self.table, self.table.T])
        latin = bool((np.sort(both, axis=2) == elements).all())
        require(latin, "table", self.table, "a Latin square of the elements 0..order-1")
        neutral = bool((both[:, 0] == elements).all())
        require(neutral, "table", self.table, "a Cayley table whose identity is element 0")
        require(len(self.labels) == self.order, "labels", f"{len(self.labels)} of them", f"{self.order} strings")
        squares, needed = (self.dimensions**2).sum(), f"of squared dimensions summing to {self.order}"
        require(squares == self.order, "irreps", f"a sum of {squares}", needed)
        object.__setattr__(self, "table", np.broadcast_to(self.table, self.table.shape))  # a read-only view
        object.__setattr__(self, "irreps", [np.broadcast_to(irrep, irrep.shape) for irrep in self.irreps])

    def __repr__(self) -> str:
        return f"FiniteGroup({self.name}, order {self.order})"

    @property
    def order(self) -> int:
        """Number of elements."""
        return len(self.table)

    @functools.cached_property
    def dimensions(self) -> Int[np.ndarray, " irreps"]:
        """Dimension of every irrep, in their order; their squares sum to the order."""
        return np.array([irrep.shape[1] for irrep in self.irreps])

    @functools.cached_property
    def inverses(self) -> Int[np.ndarray, " order"]:
        """[order], the inverse of every element."""
        return np.argmin(self.table, axis=1)

    @functools.cached_property
    def is_abelian(self) -> bool:
        """Whether ab = ba for all elements."""
        return bool((self.table == self.table.T).all())

    @functools.cached_property
    def conjugacy_classes(self) -> list[Int[np.ndarray, " size"]]:
        """The sets {g x g^-1 : g}, each as increasing indices, in the order of their smallest elements.

        >>> from rlvr_lib import symmetric_group
        >>> [members.tolist() for members in symmetric_group(3).conjugacy_classes]
        [[0], [1, 2, 5], [3, 4]]
        """
        conjugates = self.table[self.table, self.inverses[:, None]]  # [g, x] = g x g^-1
        smallest = conjugates.min(axis=0)
        return [np.flatnonzero(smallest == representative) for representative in np.unique(smallest)]

    def subgroup(self, generators: ArrayLike) -> Int[np.ndarray, " size"]:
        """Increasing indices of the smallest subgroup that contains the elements given.

        >>> from rlvr_lib import symmetric_group
        >>> symmetric_group(3).subgroup([3]).tolist()
        [0, 3, 4]
        """
        given = np.atleast_1d(generators)
        inside = given.dtype.kind in "iu" and given.ndim == 1 and bool(np.isin(given, self.table[0]).all())
        require(inside, "generators", given, f"a list of elements 0..{self.order - 1}")
        members, found = np.union1d(0, given), 0
        while found < len(members):
            found, members = len(members), np.unique(self.table[np.ix_(members, members)])
        return members

    def fourier(self, f: ArrayLike) -> list[Block]:
        """fhat(rho) = sum over g of f(g) rho(g): one array [..., d, d] for every irrep, in their order.

        Args:
            f: [..., order], real or complex.
        """
        f = self._function("f", f)
        flat = np.split(f @ self._coefficients, np.cumsum(self.dimensions**2)[:-1], axis=-1)
        return [block.reshape(*f.shape[:-1], d, d) for block, d in zip(flat, self.dimensions, strict=True)]

    def inverse_fourier(self, fhat: list[ArrayLike]) -> GroupFunction:
        """f(g) = (1/order) sum over rho of d Tr(fhat(rho) rho(g)^dagger), [..., order].

        ``fhat`` is a list as of ``fourier``. The answer is complex where a block or an irrep is complex, with an
        imaginary part of the size of rounding if the function transformed was real.
        """
        require(len(fhat) == len(self.irreps), "fhat", f"{len(fhat)} blocks", f"a list of {len(self.irreps)} blocks")
        batch, flat = np.shape(fhat[0])[:-2], []
        for block, d in zip(fhat, self.dimensions.tolist(), strict=True):
            block, shape = numbers("fhat", block), (*batch, d, d)
            require(block.shape == shape, "fhat", f"a block of shape {block.shape}", f"of shape {shape} in this block")
            flat.append(block.reshape(*batch, d * d))
        return self._synthesis(np.concatenate(flat, axis=-1))

    def convolve(self, f: ArrayLike, h: ArrayLike) -> GroupFunction:
        """(f * h)(x) = sum over ab = x of f(a) h(b), [..., order]: the law of ab for independent a ~ f and b ~ h."""
        f, h = self._function("f", f), self._function("h", h)
        return (f[..., None, :] @ h[..., self._quotients])[..., 0, :]

    def convolve_power(self, f: ArrayLike, L: int) -> GroupFunction:
        """f * f * ... * f with L factors, [..., order], by powers of the Fourier blocks; L = 0 is 1 at the identity.

        Costs about sum of d^3 log L after two transforms, where repeated convolution costs L order^2. The relative
        error grows like L times 1e-16.

        >>> from rlvr_lib import cyclic_group
        >>> cyclic_group(3).convolve_power([0, 1/2, 1/2], 10**6).round(6).tolist()
        [0.333333, 0.333333, 0.333333]
        """
        f, power = self._function("f", f), integer("L", L, low=0)
        flat = f @ self._coefficients
        for d in set(self.dimensions.tolist()):
            columns = np.flatnonzero(np.repeat(self.dimensions, self.dimensions**2) == d)
            blocks = flat[..., columns].reshape(*f.shape[:-1], -1, d, d)
            flat[..., columns] = np.linalg.matrix_power(blocks, power).reshape(*f.shape[:-1], -1)
        result = self._synthesis(flat)
        return result if np.iscomplexobj(f) else result.real

    @functools.cached_property
    def _coefficients(self) -> Float[np.ndarray, "order order"] | Complex[np.ndarray, "order order"]:
        return np.concatenate([irrep.reshape(self.order, -1) for irrep in self.irreps], axis=1)

    def _synthesis(self, flat: GroupFunction) -> GroupFunction:
        weight = np.repeat(self.dimensions / self.order, self.dimensions**2)
        return (flat * weight) @ self._coefficients.conj().T

    @functools.cached_property
    def _quotients(self) -> Int[np.ndarray, "order order"]:
        return self.table[self.inverses]  # [a, x] = a^-1 x

    def _function(self, name: str, f: ArrayLike) -> GroupFunction:
        f, allowed = numbers(name, f), f"a function on the group, of shape [..., {self.order}]"
        require(f.shape[-1:] == (self.order,), name, f"shape {f.shape}", allowed)
        return f


def cyclic_group(n: int) -> FiniteGroup:
    """Z_n, the integers modulo n >= 1 under addition; element k is the number k."""
    return _cyclic_group(integer("n", n, low=1))


def dihedral_group(n: int) -> FiniteGroup:
    """D_n of order 2n, the symmetries of the n-gon: rotations r^k (element k), reflections r^k s (element n + k)."""
    return _dihedral_group(integer("n", n, low=1))


def symmetric_group(n: int) -> FiniteGroup:
    """S_n, all permutations of n points, n from 1 to 5; labels list the images of 1..n, (ab)(i) = a(b(i))."""
    return _permutation_group(_degree(n), even=False)


def alternating_group(n: int) -> FiniteGroup:
    """A_n, the even permutations of n points, n from 1 to 5; labels list the images of 1..n, (ab)(i) = a(b(i))."""
    return _permutation_group(_degree(n), even=True)


@functools.cache
def quaternion_group() -> FiniteGroup:
    """Q_8 = {1, -1, i, -i, j, -j, k, -k} in this order, with ij = k."""
    faithful = closed_forms.quaternion_irreps()[-1]
    products = faithful[:, None] @ faithful
    table = np.abs(products[:, :, None] - faithful).sum((-2, -1)).argmin(-1)
    labels = ("1", "-1", "i", "-i", "j", "-j", "k", "-k")
    return FiniteGroup("Q_8", labels, table, closed_forms.quaternion_irreps())


@functools.lru_cache(maxsize=64)
def _cyclic_group(n: int) -> FiniteGroup:
    k = np.arange(n)
    return FiniteGroup(f"Z_{n}", tuple(map(str, range(n))), (k[:, None] + k) % n, closed_forms.cyclic_irreps(n))


@functools.lru_cache(maxsize=64)
def _dihedral_group(n: int) -> FiniteGroup:
    k, flipped = np.tile(np.arange(n), 2), np.repeat([0, 1], n)
    # r^a s^e r^b s^f = r^(a + b or a - b) s^(e + f)
    rotation = (k[:, None] + np.where(flipped[:, None], -k, k)) % n
    labels = tuple("r" + f"^{power}" * (power > 1) if power else "1" for power in range(n))
    labels += tuple((label if label != "1" else "") + "s" for label in labels)
    table = rotation + n * (flipped[:, None] ^ flipped)
    return FiniteGroup(f"D_{n}", labels, table, closed_forms.dihedral_irreps(n))


def _degree(n: object) -> int:
    degree = integer("n", n, low=1)
    require(degree <= LARGEST_DEGREE, "n", degree, f"at most {LARGEST_DEGREE}")
    return degree


@functools.cache
def _permutation_group(n: int, even: bool) -> FiniteGroup:
    every = np.array(list(itertools.permutations(range(n))))
    inversions = np.triu(every[:, :, None] > every[:, None, :]).sum((1, 2))
    permutations = every[inversions % 2 == 0] if even else every
    labels = tuple("".join(str(image + 1) for image in images) for images in permutations)
    digits = n ** np.arange(n)[::-1]
    products = permutations[:, permutations]  # [a, b, i] = a(b(i))
    table = np.searchsorted(permutations @ digits, products @ digits)
    irreps = closed_forms.alternating_irreps if even else closed_forms.symmetric_irreps
    return FiniteGroup(f"{'A' if even else 'S'}_{n}", labels, table, irreps(permutations))
