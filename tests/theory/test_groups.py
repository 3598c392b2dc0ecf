"""Finite groups: tables, irreps, Fourier transform, convolution, permutation statistics.

Everything here is exact up to rounding; nothing is sampled except the functions that hypothesis draws.
"""

import doctest
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sympy.combinatorics import Permutation

import rlvr_lib.theory.groups
import rlvr_lib.theory.readings
from rlvr_lib.theory.groups import (
    FiniteGroup,
    alternating_group,
    cyclic_group,
    dihedral_group,
    quaternion_group,
    symmetric_group,
)
from rlvr_lib.theory.irreps import partitions
from rlvr_lib.theory.readings import all_permutations, breakpoint_cycles, permanent

CONSTRUCTORS = {
    "cyclic_group": cyclic_group,
    "dihedral_group": dihedral_group,
    "symmetric_group": symmetric_group,
    "alternating_group": alternating_group,
    "quaternion_group": quaternion_group,
}
ARGUMENTS = {
    "cyclic_group": (1, 2, 3, 6, 7, 96),
    "dihedral_group": (1, 2, 3, 4, 5, 6, 15),
    "symmetric_group": (1, 2, 3, 4, 5),
    "alternating_group": (1, 2, 3, 4, 5),
    "quaternion_group": (None,),
}
ORDERS = {
    "cyclic_group": lambda n: n,
    "dihedral_group": lambda n: 2 * n,
    "symmetric_group": math.factorial,
    "alternating_group": lambda n: max(1, math.factorial(n) // 2),
    "quaternion_group": lambda n: 8,
}
EVERY = [(name, n) for name, many in ARGUMENTS.items() for n in many]
SMALL = [cyclic_group(6), symmetric_group(3), dihedral_group(4), quaternion_group(), alternating_group(4)]
PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "character_tables.json").read_text())["tables"]


def build(constructor, argument):
    return CONSTRUCTORS[constructor](*(() if argument is None else (argument,)))


@pytest.fixture(params=EVERY, ids=lambda case: f"{case[0]}-{case[1]}")
def group(request):
    return build(*request.param)


def brute_convolution(table, f, h):
    """Sum over all pairs, straight from the definition."""
    product = np.zeros(len(table), dtype=np.result_type(f, h))
    np.add.at(product, table, np.multiply.outer(f, h))
    return product


def functions(order):
    return arrays(np.float64, order, elements=st.floats(-10, 10, width=32))


@pytest.mark.parametrize("module", [rlvr_lib.theory.groups, rlvr_lib.theory.readings])
def test_docstring_examples(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize(("constructor", "argument"), EVERY)
def test_order(constructor, argument):
    group = build(constructor, argument)
    assert group.order == len(group.table) == len(group.labels) == ORDERS[constructor](argument)


def test_cayley_table_is_associative_with_identity_zero_and_inverses(group):
    table, elements = group.table, np.arange(group.order)
    assert np.array_equal(table[table], table[:, table])  # (ab)c and a(bc)
    assert np.array_equal(table[0], elements)
    assert np.array_equal(table[:, 0], elements)
    assert not table[elements, group.inverses].any()
    assert not table[group.inverses, elements].any()
    assert len(set(group.labels)) == group.order


@pytest.mark.parametrize("constructor", ["symmetric_group", "alternating_group"])
@pytest.mark.parametrize("n", [3, 4, 5])
def test_permutations_compose_as_functions(constructor, n):
    group = build(constructor, n)
    for a, b in itertools.product(range(group.order), repeat=2):
        first, second = group.labels[b], group.labels[a]
        assert group.labels[group.table[a, b]] == "".join(second[int(image) - 1] for image in first)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_alternating_group_holds_the_even_permutations(n):
    even = {label for label in symmetric_group(n).labels if Permutation(digits(label)).is_even}
    assert set(alternating_group(n).labels) == even


def digits(label):
    return [int(image) - 1 for image in label]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_dihedral_group_permutes_the_corners_of_the_polygon(n):
    # A corner x goes to x + k under r^k and to k - x under r^k s. Fewer than 3 corners do not tell these apart: 3n.
    group, corners = dihedral_group(n), 3 * n if n < 3 else n
    step = corners // n
    moves = np.array(
        [[(step * k + x) % corners for x in range(corners)] for k in range(n)]
        + [[(step * k - x) % corners for x in range(corners)] for k in range(n)]
    )
    for a, b in itertools.product(range(2 * n), repeat=2):
        assert np.array_equal(moves[group.table[a, b]], moves[a][moves[b]])


def test_quaternions_multiply_as_hamilton_carved():
    group = quaternion_group()
    index = {label: position for position, label in enumerate(group.labels)}

    def product(*factors):
        element = 0
        for factor in factors:
            element = group.table[element, index[factor]]
        return group.labels[element]

    assert product("i", "i") == product("j", "j") == product("k", "k") == product("i", "j", "k") == "-1"
    assert [product("i", "j"), product("j", "k"), product("k", "i")] == ["k", "i", "j"]
    assert [product("j", "i"), product("k", "j"), product("i", "k")] == ["-k", "-i", "-j"]


def test_irreps_are_unitary_homomorphisms(group):
    for irrep in group.irreps:
        d = irrep.shape[1]
        assert irrep.shape == (group.order, d, d)
        assert np.abs(irrep[:, None] @ irrep - irrep[group.table]).max() < 1e-12
        assert np.abs(irrep @ irrep.conj().swapaxes(1, 2) - np.eye(d)).max() < 1e-12
    assert np.array_equal(group.irreps[0], np.ones((group.order, 1, 1)))


def test_schur_orthogonality(group):
    # All matrix coefficients, scaled by sqrt(d / order), form a square unitary matrix: irreducible, distinct, complete.
    coefficients = np.concatenate(
        [irrep.reshape(group.order, -1) * np.sqrt(irrep.shape[1] / group.order) for irrep in group.irreps], axis=1
    )
    assert coefficients.shape == (group.order, group.order)
    assert np.abs(coefficients.conj().T @ coefficients - np.eye(group.order)).max() < 1e-12


def character_table(group):
    """Traces of the irreps (rows) on the conjugacy classes (columns)."""
    first = [members[0] for members in group.conjugacy_classes]
    return np.array([np.trace(irrep[first], axis1=1, axis2=2) for irrep in group.irreps])


def class_average(group, f):
    """f replaced by its mean over each conjugacy class."""
    average = np.empty(f.shape)
    for members in group.conjugacy_classes:
        average[..., members] = f[..., members].mean(axis=-1, keepdims=True)
    return average


def test_classes_partition_the_group_and_match_the_irreps(group):
    classes = group.conjugacy_classes
    assert sorted(np.concatenate(classes).tolist()) == list(range(group.order))
    assert len(classes) == len(group.irreps)
    for members in classes:
        conjugates = {group.table[group.table[g, members[0]], group.inverses[g]] for g in range(group.order)}
        assert conjugates == set(members.tolist())
    assert group.is_abelian == all(len(members) == 1 for members in classes)
    # Column orthogonality: the sum over irreps of |character|^2 is the order over the size of the class.
    sizes = np.array([len(members) for members in classes])
    assert np.allclose((np.abs(character_table(group)) ** 2).sum(0), group.order / sizes, rtol=0, atol=1e-11)


@pytest.mark.parametrize("table", PUBLISHED, ids=lambda table: f"{table['constructor']}-{table['argument']}")
def test_published_character_tables(table):
    group = build(table["constructor"], table["argument"])
    index = {label: position for position, label in enumerate(group.labels)}
    columns = [
        next(c for c, members in enumerate(group.conjugacy_classes) if index[label] in members)
        for label in table["representatives"]
    ]
    assert sorted(columns) == list(range(len(group.irreps)))
    assert [len(group.conjugacy_classes[c]) for c in columns] == table["class_sizes"]
    published = np.array([[complex(sympy.sympify(entry)) for entry in row] for row in table["characters"]])
    agrees = np.abs(published[:, None] - character_table(group)[:, columns]).max(axis=2) < 1e-12
    assert np.array_equal(agrees.sum(0), np.ones(len(published)))
    assert np.array_equal(agrees.sum(1), np.ones(len(published)))


@pytest.mark.parametrize("n", [3, 4, 5])
def test_random_transpositions_act_by_contents(n):
    # Diaconis and Shahshahani 1981: on the shape lambda the class average of transpositions is the scalar
    # sum of contents / C(n, 2).
    group = symmetric_group(n)
    moved = np.array([sum(image != place for place, image in enumerate(digits(label))) for label in group.labels])
    transposition = (moved == 2) / math.comb(n, 2)
    for shape, block in zip(partitions(n), group.fourier(transposition), strict=True):
        contents = sum(column - row for row, length in enumerate(shape) for column in range(length))
        assert np.abs(block - np.eye(len(block)) * contents / math.comb(n, 2)).max() < 1e-13


@pytest.mark.parametrize(
    "group",
    [cyclic_group(96), dihedral_group(15), quaternion_group(), alternating_group(5), symmetric_group(5)],
    ids=repr,
)
def test_fourier_inverse_plancherel_and_convolution_theorem(group):
    rng = np.random.default_rng(20)
    f, h = rng.normal(size=(2, group.order)) + 1j * rng.normal(size=(2, group.order))
    fhat, hhat = group.fourier(f), group.fourier(h)
    assert np.abs(group.inverse_fourier(fhat) - f).max() < 1e-12
    energy = sum(len(block) * np.linalg.norm(block) ** 2 for block in fhat) / group.order
    assert energy == pytest.approx(np.linalg.norm(f) ** 2, rel=1e-12)
    for left, right, product in zip(fhat, hhat, group.fourier(group.convolve(f, h)), strict=True):
        assert np.abs(left @ right - product).max() < 1e-10
    assert np.abs(group.convolve(f, h) - brute_convolution(group.table, f, h)).max() < 1e-11


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_convolution_properties(data):
    group = data.draw(st.sampled_from(SMALL))
    f, g, h = (data.draw(functions(group.order)) for _ in range(3))
    scale = 1 + np.abs(f).sum() * np.abs(g).sum() * np.abs(h).sum()
    identity = np.eye(group.order)[0]
    assert np.array_equal(group.convolve(f, identity), f)
    assert np.array_equal(group.convolve(identity, f), f)
    assert np.abs(group.convolve(f, h) - brute_convolution(group.table, f, h)).max() <= 1e-13 * scale
    left, right = group.convolve(group.convolve(f, g), h), group.convolve(f, group.convolve(g, h))
    assert np.abs(left - right).max() <= 1e-13 * scale
    average = class_average(group, f)
    assert np.abs(group.convolve(average, g) - group.convolve(g, average)).max() <= 1e-13 * scale
    assert average.sum() == pytest.approx(f.sum(), abs=1e-12 * scale)
    assert group.convolve(f, h).dtype == np.float64


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_powers_are_repeated_convolutions(data):
    group = data.draw(st.sampled_from(SMALL))
    f = data.draw(functions(group.order)) / 10
    power = data.draw(st.integers(0, 12))
    expected = np.eye(group.order)[0]
    for _ in range(power):
        expected = brute_convolution(group.table, expected, f)
    scale = max(1.0, np.abs(f).sum()) ** power
    result = group.convolve_power(f, power)
    assert result.dtype == np.float64
    assert np.abs(result - expected).max() <= 1e-13 * scale


@pytest.mark.parametrize("power", [0, 1, 2, 3, 60])
@pytest.mark.parametrize("group", [*SMALL, alternating_group(5), symmetric_group(5)], ids=repr)
def test_powers_of_probability_laws(group, power):
    law = np.random.default_rng(power).dirichlet(np.full(group.order, 0.3))
    expected = np.eye(group.order)[0]
    for _ in range(power):
        expected = brute_convolution(group.table, expected, law)
    assert np.abs(group.convolve_power(law, power) - expected).max() < 1e-14


def test_powers_of_a_complex_function():
    group, rng = symmetric_group(3), np.random.default_rng(4)
    f = (rng.normal(size=6) + 1j * rng.normal(size=6)) / 6
    expected = brute_convolution(group.table, f, brute_convolution(group.table, f, f))
    assert np.abs(group.convolve_power(f, 3) - expected).max() < 1e-14


def test_huge_powers():
    group = symmetric_group(5)
    law = np.random.default_rng(1).dirichlet(np.ones(120))
    assert np.abs(group.convolve_power(law, 10**9) - 1 / 120).max() < 1e-8
    # A point mass has no decay to hide behind: the five-cycle returns after every five steps.
    cycle = group.labels.index("23451")
    point = np.eye(120)[cycle]
    assert np.abs(group.convolve_power(point, 5 * 10**6 + 1) - point).max() < 1e-8


def test_batches_and_class_average(group):
    f = np.random.default_rng(3).normal(size=(2, 3, group.order))
    fhat = group.fourier(f)
    assert [block.shape for block in fhat] == [(2, 3, *irrep.shape[1:]) for irrep in group.irreps]
    assert np.abs(group.inverse_fourier(fhat) - f).max() < 1e-12
    assert np.abs(group.convolve(f, f[0, 0])[1, 2] - group.convolve(f[1, 2], f[0, 0])).max() < 1e-12
    assert np.abs(group.convolve_power(f, 2)[1, 2] - group.convolve(f[1, 2], f[1, 2])).max() < 1e-11
    average = class_average(group, f)
    for block, mean in zip(fhat, group.fourier(average), strict=True):
        d = block.shape[-1]
        scalar = np.trace(block, axis1=-2, axis2=-1)[..., None, None] / d
        assert np.abs(mean - scalar * np.eye(d)).max() < 1e-11


def test_subgroups():
    group = symmetric_group(4)
    swap, cycle, three = (group.labels.index(label) for label in ("2134", "2341", "2314"))
    assert len(group.subgroup([swap, cycle])) == 24
    assert len(group.subgroup([cycle])) == 4
    assert {group.labels[x] for x in group.subgroup(three)} == {"1234", "2314", "3124"}
    assert group.subgroup([0]).tolist() == [0]


def test_construction_is_cached_deterministic_and_immutable():
    assert symmetric_group(5) is symmetric_group(5)
    assert cyclic_group(7) is cyclic_group(np.int64(7))
    fresh = rlvr_lib.theory.groups._permutation_group.__wrapped__
    first, second = fresh(5, even=False), fresh(5, even=True)
    for built, again in ((first, symmetric_group(5)), (second, alternating_group(5))):
        assert all(np.array_equal(a, b) for a, b in zip(built.irreps, again.irreps, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        symmetric_group(5).table[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        symmetric_group(5).irreps[1][0] = 1


@pytest.mark.parametrize("constructor", [cyclic_group, dihedral_group, symmetric_group, alternating_group])
@pytest.mark.parametrize("bad", [0, -3, 2.0, "3", None, True, [3], float("nan")])
def test_constructors_refuse_what_is_not_a_size(constructor, bad):
    constructor(1)  # in the cache, where True and 1 would be one key
    with pytest.raises(ValueError, match=r"^n must be an integer of at least 1"):
        constructor(bad)


@pytest.mark.parametrize("constructor", [symmetric_group, alternating_group])
def test_permutation_groups_stop_at_degree_five(constructor):
    with pytest.raises(ValueError, match=r"^n must be at most 5, got 6"):
        constructor(6)


@pytest.mark.parametrize("bad", [np.ones(5), np.ones((6, 5)), 1.0, [1, 2, np.nan, 0, 0, 0], ["a"] * 6, [[1], [1, 2]]])
def test_methods_refuse_what_is_not_a_function_on_the_group(bad):
    group, good = symmetric_group(3), np.ones(6)
    for call in (
        group.fourier,
        lambda f: group.convolve(f, good),
        lambda f: group.convolve_power(f, 2),
    ):
        with pytest.raises(ValueError, match=r"^f must be"):
            call(bad)
    with pytest.raises(ValueError, match=r"^h must be"):
        group.convolve(good, bad)


@pytest.mark.parametrize("bad", [-1, 1.5, True, "2"])
def test_powers_refuse_what_is_not_a_count(bad):
    with pytest.raises(ValueError, match=r"^L must be an integer of at least 0"):
        symmetric_group(3).convolve_power(np.ones(6), bad)


def test_inverse_fourier_refuses_wrong_blocks():
    group = symmetric_group(3)
    blocks = group.fourier(np.ones(6))
    for bad in (blocks[:2], [blocks[0], blocks[0], blocks[2]], [blocks[0], blocks[1] * np.nan, blocks[2]]):
        with pytest.raises(ValueError, match=r"^fhat must be"):
            group.inverse_fourier(bad)


@pytest.mark.parametrize("bad", [[6], [-1], [0.5], [[1, 2]]])
def test_subgroup_refuses_what_is_not_an_element(bad):
    with pytest.raises(ValueError, match=r"^generators must be a list of elements 0..5"):
        symmetric_group(3).subgroup(bad)


def test_groups_refuse_inconsistent_parts():
    good = symmetric_group(3)
    parts = {"name": "G", "labels": good.labels, "table": good.table.copy(), "irreps": good.irreps}
    wrong = {
        "labels": good.labels[:5],
        "table": np.zeros((6, 6), dtype=int),
        "irreps": good.irreps[:2],
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"^{name} must be"):
            FiniteGroup(**(parts | {name: value}))
    with pytest.raises(ValueError, match=r"^table must be a Cayley table whose identity is element 0"):
        FiniteGroup(**(parts | {"table": np.roll(good.table, 1, axis=0)}))


# Rows of OEIS A164652 (Hultman numbers): permutations of h things by cycles 1, ..., h + 1 of the breakpoint graph.
A164652 = [
    [1],
    [0, 1],
    [1, 0, 1],
    [0, 5, 0, 1],
    [8, 0, 15, 0, 1],
    [0, 84, 0, 35, 0, 1],
    [180, 0, 469, 0, 70, 0, 1],
    [0, 3044, 0, 1869, 0, 126, 0, 1],
    [8064, 0, 26060, 0, 5985, 0, 210, 0, 1],
]


@pytest.mark.parametrize(("h", "row"), list(enumerate(A164652)))
def test_hultman_numbers(h, row):
    assert np.bincount(breakpoint_cycles(all_permutations(h)), minlength=h + 2).tolist() == [0, *row]


def breakpoint_graph_cycles(permutation):
    """Alternating cycles by walking the graph: black edges pi_i to pi_(i-1), grey edges x to x + 1, modulo h + 1."""
    h = len(permutation)
    extended = [0, *(x + 1 for x in permutation)]
    black = {extended[i]: extended[i - 1] for i in range(h + 1)}
    unused, cycles = set(black), 0
    while unused:
        vertex, cycles = unused.pop(), cycles + 1
        while (vertex := (black[vertex] + 1) % (h + 1)) in unused:
            unused.remove(vertex)
    return cycles


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30).flatmap(lambda h: st.permutations(range(h))))
def test_breakpoint_cycles_by_walking_the_graph(permutation):
    assert breakpoint_cycles(permutation) == breakpoint_graph_cycles(permutation)


def test_permutations_are_all_there():
    assert all_permutations(4).shape == (24, 4)
    assert len({tuple(row) for row in all_permutations(5).tolist()}) == 120
    with pytest.raises(ValueError, match=r"^h must be at most 9, got 10"):
        all_permutations(10)


@pytest.mark.parametrize("bad", [[0, 0], [1, 2], [0.5, 1], 3, [[0, 1], [0, 2]]])
def test_breakpoint_cycles_refuse_what_is_not_a_permutation(bad):
    with pytest.raises(ValueError, match=r"^permutations must be"):
        breakpoint_cycles(bad)


@pytest.mark.parametrize("h", [0, 1, 2, 5, 7])
def test_permanent_by_its_definition(h):
    matrix = np.random.default_rng(h).normal(size=(h, h))
    expected = sum(math.prod(matrix[row, p[row]] for row in range(h)) for p in itertools.permutations(range(h)))
    assert permanent(matrix) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_permanent_counts_derangements_without_cancellation():
    # OEIS A000166 at 16; Ryser's formula would subtract terms 10^9 times larger.
    assert permanent(np.ones((16, 16)) - np.eye(16)) == 7697064251745


@pytest.mark.parametrize("bad", [np.ones((2, 3)), np.ones(4), np.ones((23, 23)), [[np.nan]]])
def test_permanent_refuses_what_is_not_square(bad):
    with pytest.raises(ValueError, match=r"^matrix must be"):
        permanent(bad)
