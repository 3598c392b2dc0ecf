"""Theorem 3: the same number by enumeration, dynamic programming, Fourier analysis and closed form, with autodiff.

Everything is exact up to rounding; random laws and attention patterns only choose the instances.
"""

import doctest
import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import logit

import rlvr_lib.theory.relay
from rlvr_lib.theory.groups import (
    alternating_group,
    cyclic_group,
    dihedral_group,
    quaternion_group,
    symmetric_group,
)
from rlvr_lib.theory.readings import all_permutations, attention_success, reading_success
from rlvr_lib.theory.relay import (
    clause_attention,
    clause_pair_law,
    coset_floor,
    escape_time,
    handoff_exponent,
    next_ratio,
    normalized_success,
    pair_success,
    relay_velocity,
    saturated_decay,
    saturated_exponent,
    stage_time,
    uniform_error_success,
    walk_decay_rate,
    walk_success,
)

Z5, Z6, S3, D4, Q8, A4, S4, A5, S5 = GROUPS = [
    cyclic_group(5),
    cyclic_group(6),
    symmetric_group(3),
    dihedral_group(4),
    quaternion_group(),
    alternating_group(4),
    symmetric_group(4),
    alternating_group(5),
    symmetric_group(5),
]


def test_docstring_examples():
    outcome = doctest.testmod(rlvr_lib.theory.relay)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def random_law(group, seed, concentration=0.3):
    return np.random.default_rng(seed).dirichlet(np.full(group.order, concentration))


def products(group, sequences):
    """Product of each row of elements, from left to right."""
    result = np.zeros(len(sequences), dtype=int)
    for column in sequences.T:
        result = group.table[result, column]
    return result


def every_sequence(group, length):
    return np.array(list(itertools.product(range(group.order), repeat=length)))


def step_law(group, w):
    """Law of one step's error: the right clause is read with probability sigmoid(w), else the step is uniform."""
    right = torch.sigmoid(w)
    law = (1 - right).expand(group.order) / group.order
    return law + right * torch.eye(group.order, dtype=torch.float64)[0]


def success_by_enumeration(group, horizon, w):
    errors = every_sequence(group, horizon)
    returned = torch.as_tensor(errors[products(group, errors) == 0])
    return step_law(group, w)[returned].prod(dim=1).sum()


def success_by_dynamic_programming(group, horizon, w):
    law, state = step_law(group, w), torch.eye(group.order, dtype=torch.float64)[0]
    for _ in range(horizon):
        flow = torch.outer(state, law).ravel()
        state = torch.zeros_like(state).index_add(0, torch.tensor(group.table.ravel()), flow)
    return state[0]


def success_by_fourier(group, horizon, w):
    law, total = step_law(group, w).to(torch.complex128), 0
    for irrep in group.irreps:
        block = torch.tensordot(law, torch.tensor(irrep, dtype=torch.complex128), dims=1)
        total = total + irrep.shape[1] * torch.trace(torch.linalg.matrix_power(block, horizon)).real
    return total / group.order


@pytest.mark.parametrize("w", [-1.0, 0.0, math.log(4)])
@pytest.mark.parametrize(("group", "horizon"), [(Z5, 5), (S3, 5), (D4, 4), (Q8, 4), (A4, 3)], ids=repr)
def test_success_and_its_gradient_four_ways(group, horizon, w):
    values, slopes = [], []
    for way in (success_by_enumeration, success_by_dynamic_programming, success_by_fourier):
        variable = torch.tensor(w, dtype=torch.float64, requires_grad=True)
        success = way(group, horizon, variable)
        values.append(success.item())
        slopes.append(torch.autograd.grad(success, variable)[0].item())
    attention = clause_attention(w)
    accuracy = attention + (1 - attention) / group.order
    values.append(uniform_error_success(group.order, accuracy, horizon))
    values.append(walk_success(group, step_law(group, torch.tensor(w, dtype=torch.float64)).numpy(), horizon))
    slopes.append(relay_velocity(w, [horizon], group.order))
    assert np.ptp(values) < 1e-13
    assert np.ptp(slopes) < 1e-13


@pytest.mark.parametrize("group", GROUPS, ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_walk_success_by_dynamic_programming(group, seed):
    law, state = random_law(group, seed), np.eye(group.order)[0]
    expected = []
    for _ in range(61):
        expected.append(state[0])
        state = np.bincount(group.table.ravel(), np.outer(state, law).ravel(), minlength=group.order)
    assert np.abs(walk_success(group, law, np.arange(61)) - expected).max() < 1e-13
    assert walk_success(group, law, 60) == pytest.approx(group.convolve_power(law, 60)[0], abs=1e-13)


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_conjugation_never_slows_the_decay(group):
    for seed in range(5):
        law = random_law(group, seed)
        task, undisturbed = walk_decay_rate(group, law, conjugated=True), walk_decay_rate(group, law)
        assert task <= undisturbed + 1e-12
        assert task == pytest.approx(undisturbed) or not group.is_abelian


def test_decay_rates_of_a_step_that_is_never_right():
    law = np.zeros(6)
    law[[S3.labels.index("213"), S3.labels.index("231")]] = 0.5
    assert walk_decay_rate(S3, law) == pytest.approx(1 / 2)
    assert walk_decay_rate(S3, law, conjugated=True) == pytest.approx(1 / 4)
    horizons = np.arange(1, 8)
    y = normalized_success(walk_success(S3, law, horizons, conjugated=True), 6)
    assert y == pytest.approx(4 / 5 * (-1 / 4) ** horizons)


@pytest.mark.parametrize("group", [Z5, S3, D4, Q8], ids=repr)
def test_conjugated_walk_by_enumeration(group):
    # Step i does e_i g_i with g_i uniform, and the answer is right when the product is that of the g_i.
    law, h = random_law(group, 7), 2
    sequences = every_sequence(group, 2 * h)
    errors, right = sequences[:, :h], sequences[:, h:]
    done = group.table[errors, right]
    correct = products(group, done) == products(group, right)
    expected = (law[errors].prod(axis=1) * correct).sum() / group.order**h
    assert walk_success(group, law, h, conjugated=True) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_conjugated_walk_is_the_class_averaged_walk_and_a_pair_walk(group):
    law, horizon = random_law(group, 11), np.array([[0, 1, 2], [5, 20, 60]])
    conjugated = walk_success(group, law, horizon, conjugated=True)
    averaged = law[group.table[group.table, group.inverses[:, None]]].mean(0)  # over g of law(g x g^-1)
    assert conjugated.shape == horizon.shape
    assert np.abs(conjugated - walk_success(group, averaged, horizon)).max() < 1e-13
    joint = np.zeros((group.order, group.order))
    for right in range(group.order):
        joint[right, group.table[:, right]] = law / group.order
    assert np.abs(conjugated - pair_success(group, joint, horizon)).max() < 1e-13


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(GROUPS),
    st.floats(0, 1),
    st.integers(0, 60),
)
def test_uniform_errors_agree_with_the_walk(group, accuracy, horizon):
    law = np.full(group.order, (1 - accuracy) / (group.order - 1))
    law[0] = accuracy
    closed = uniform_error_success(group.order, accuracy, horizon)
    for conjugated in (False, True):
        assert walk_success(group, law, horizon, conjugated) == pytest.approx(closed, abs=1e-13)
    decay = abs(group.order * accuracy - 1) / (group.order - 1)
    assert walk_decay_rate(group, law) == pytest.approx(decay, abs=1e-13)


def test_uniform_error_success_broadcasts_and_knows_its_ends():
    grid = uniform_error_success([[2], [6]], [0.0, 0.5, 1.0], 3)
    assert grid.shape == (2, 3)
    assert uniform_error_success(2, 0, [0, 1, 2, 3]).tolist() == [1, 0, 1, 0]
    assert uniform_error_success(1, 1, 9) == 1
    assert uniform_error_success(6, 1, 10**6) == 1
    assert uniform_error_success(6, 1 / 6, 4) == pytest.approx(1 / 6, rel=1e-15)
    assert normalized_success(uniform_error_success(6, 0.9, 5), 6) == pytest.approx(0.88**5, rel=1e-14)


def test_decay_follows_the_spectral_radius_and_not_the_norm():
    # A law on S_3 whose two-dimensional block is nilpotent: at chance from the second step on, whatever its norm.
    blocks = [np.ones((1, 1)), np.array([[0, 0.3], [0, 0]]), np.zeros((1, 1))]
    law = S3.inverse_fourier(blocks)
    assert law.min() > 0
    success = walk_success(S3, law, np.arange(1, 6))
    assert np.abs(success[1:] - 1 / 6).max() < 1e-15
    assert abs(walk_decay_rate(S3, law)) < 1e-7  # a double zero eigenvalue, known to the square root of rounding
    assert np.linalg.norm(blocks[1], 2) == 0.3


@pytest.mark.parametrize("conjugated", [False, True])
@pytest.mark.parametrize("group", [Z6, S3, D4, Q8, A4, S4], ids=repr)
def test_walk_decay_rate_bounds_the_distance_to_chance(group, conjugated):
    law, horizon = random_law(group, 5, concentration=2.0), np.arange(1, 200)
    rate = walk_decay_rate(group, law, conjugated)
    # n y is a sum of order - 1 powers of rates, so |P - 1/n| <= (1 - 1/n) max d rate^h.
    largest = max(irrep.shape[1] for irrep in group.irreps)
    distance = np.abs(walk_success(group, law, horizon, conjugated) - 1 / group.order)
    assert (distance <= (1 - 1 / group.order) * largest * rate**horizon + 1e-15).all()
    assert walk_decay_rate(cyclic_group(1), [1.0]) == 0


@pytest.mark.parametrize("group", [Z5, Z6, S3, D4, Q8, A4], ids=repr)
def test_pair_success_by_dynamic_programming(group):
    n = group.order
    joint = np.random.default_rng(n).dirichlet(np.full(n * n, 0.1)).reshape(n, n)
    state, expected = np.zeros((n, n)), []
    state[0, 0] = 1
    for _ in range(12):
        expected.append(np.trace(state))
        moved = np.zeros((n, n))
        for right, done in itertools.product(range(n), repeat=2):
            moved[np.ix_(group.table[:, right], group.table[:, done])] += joint[right, done] * state
        state = moved
    assert np.abs(pair_success(group, joint, np.arange(12)) - expected).max() < 1e-14
    assert pair_success(group, joint, 7) == pytest.approx(expected[7], abs=1e-14)


def law_on(group, members):
    law = np.zeros(group.order)
    law[members] = 1 / len(members)
    return law


def elements(group, *labels):
    return [group.labels.index(label) for label in labels]


@pytest.mark.parametrize(
    ("group", "support", "normal_order"),
    [
        (S3, elements(S3, "132", "213", "321"), 3),  # transpositions: A_3
        (S3, elements(S3, "213", "231"), 6),
        (S4, [x for x in range(24) if S4.irreps[-1][x, 0, 0] < 0], 12),  # odd permutations: A_4
        (D4, elements(D4, "s", "r^2s"), 2),  # {1, r^2} in the group {1, r^2, s, r^2 s}
        (Z6, [1, 3, 5], 3),
        (Z6, [2], 1),  # one clause only: nothing can go wrong
        (Q8, elements(Q8, "i", "-i"), 2),
        (A5, elements(A5, "23145", "21435"), 12),  # they generate a copy of A_4, in no coset of its Klein group
        (S5, range(120), 120),
    ],
)
def test_coset_floor_is_the_limit_of_long_chains(group, support, normal_order):
    law = law_on(group, list(support))
    assert coset_floor(group, law) == 1 / normal_order
    long = pair_success(group, clause_pair_law(law, 0.3), [400, 401, 406])
    assert np.abs(long - 1 / normal_order).max() < 1e-12


@pytest.mark.parametrize("group", [Z5, S3, Q8], ids=repr)
def test_clause_pairs_on_uniform_clauses_are_uniform_errors(group):
    law, attention = np.full(group.order, 1 / group.order), 0.6
    accuracy = attention + (1 - attention) / group.order
    expected = uniform_error_success(group.order, accuracy, np.arange(20))
    assert np.abs(pair_success(group, clause_pair_law(law, attention), np.arange(20)) - expected).max() < 1e-14


@pytest.mark.parametrize(("group", "h"), [(Z5, 4), (Z6, 4), (S3, 5), (D4, 4), (Q8, 4), (A4, 4)], ids=repr)
def test_reading_success_by_enumerating_all_chains(group, h):
    chains = every_sequence(group, h)
    right = products(group, chains)
    permutations = all_permutations(h)
    expected = [(products(group, chains[:, order]) == right).mean() for order in permutations]
    assert np.abs(reading_success(group, permutations) - expected).max() < 1e-15


@pytest.mark.parametrize("context", [3, 5])
@pytest.mark.parametrize("group", [Z5, S3, D4], ids=repr)
def test_attention_success_by_enumerating_chains_and_readings(group, context):
    h = 3
    attention = np.random.default_rng(context).dirichlet(np.ones(context), size=h)
    clauses = every_sequence(group, context)
    right, expected = products(group, clauses[:, :h]), 0.0
    for reading in itertools.product(range(context), repeat=h):
        done = products(group, clauses[:, list(reading)])
        expected += attention[np.arange(h), reading].prod() * (done == right).mean()
    assert attention_success(group, attention) == pytest.approx(expected, abs=1e-14)


def test_attention_success_at_its_ends():
    assert attention_success(S3, np.eye(6)) == pytest.approx(1, rel=1e-15)
    assert attention_success(A5, np.eye(3)[[1, 0, 2]]) == pytest.approx(5 / 60, rel=1e-12)  # classes over order
    assert attention_success(Z6, np.eye(12)[::-1][:, ::-1]) == 1
    distractor = np.hstack([np.zeros((4, 4)), np.full((4, 2), 0.5)])
    assert attention_success(S4, distractor) == pytest.approx(1 / 24, rel=1e-15)


def torch_permanent_success(logits, order):
    attention = torch.softmax(logits, dim=1)
    h = len(logits)
    chosen = attention[torch.arange(h), torch.as_tensor(all_permutations(h))].prod(dim=1)
    return 1 / order + (1 - 1 / order) * chosen.sum()


def test_uniform_attention_is_a_saddle_on_abelian_groups():
    h, uniform = 4, torch.zeros(4, 4, dtype=torch.float64)
    assert attention_success(Z5, np.full((h, h), 1 / h)) == pytest.approx(
        torch_permanent_success(uniform, 5).item(), rel=1e-14
    )
    slope = torch.autograd.functional.jacobian(lambda x: torch_permanent_success(x, 5), uniform)
    assert slope.abs().max() < 1e-16
    curvature = torch.autograd.functional.hessian(lambda x: torch_permanent_success(x, 5), uniform).reshape(h * h, -1)
    eigenvalues = torch.linalg.eigvalsh(curvature)
    assert eigenvalues[0] < -1e-3
    assert eigenvalues[-1] > 1e-3


def test_dilute_identity_term_undercounts_on_abelian_groups():
    attention = clause_attention(math.log(4), 5)
    pattern = np.full((5, 5), (1 - attention) / 4) + np.eye(5) * (attention - (1 - attention) / 4)
    y = normalized_success(attention_success(Z5, pattern), 5)
    assert y / attention**5 == pytest.approx(2.15625, rel=1e-12)


@pytest.mark.parametrize("dilute", [False, True])
def test_relay_velocity_by_autodiff(dilute):
    horizons, order = np.array([1, 5, 15, 45]), 6
    contexts = horizons if dilute else np.full(4, 2)
    for w in (-3.0, 0.5, 4.0):
        variable = torch.tensor(w, dtype=torch.float64, requires_grad=True)
        attention = 1 / (1 + (torch.tensor(contexts) - 1) * torch.exp(-variable))
        success = (1 / order + (1 - 1 / order) * attention ** torch.tensor(horizons)).mean()
        expected = torch.autograd.grad(success, variable)[0].item()
        assert relay_velocity(w, horizons, order, contexts) == pytest.approx(expected, rel=1e-12)
    assert relay_velocity([-800.0, 800.0], horizons, order, contexts) == pytest.approx([0, 0], abs=1e-300)


def printed_escape_time(horizon, start, stop, order):
    """The antiderivative of 1 / (x^(h+1) (1-x)^2) in partial fractions, at 80 digits, where it may cancel freely."""
    with mpmath.workdps(80):
        m = horizon + 1

        def antiderivative(x):
            x = mpmath.mpf(x)
            poles = sum((j + 1) * x ** (j + 1 - m) / (m - 1 - j) for j in range(m - 1))
            return -poles + m * mpmath.log(x) + 1 / (1 - x) - m * mpmath.log(1 - x)

        return float((antiderivative(stop) - antiderivative(start)) / ((1 - mpmath.mpf(1) / order) * horizon))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
    st.integers(2, 120),
)
def test_escape_time_by_partial_fractions(horizon, one, other, order):
    start, stop = sorted((one, other))
    expected = printed_escape_time(horizon, start, stop, order)
    assert escape_time(horizon, start, stop, order) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("horizon", "start", "stop"), [(1, 1e-9, 0.5), (45, 1e-6, 0.3), (300, 0.2, 1 - 1e-9)])
def test_escape_time_by_quadrature(horizon, start, stop):
    with mpmath.workdps(25):
        ends = [mpmath.log(mpmath.mpf(a) / (1 - mpmath.mpf(a))) for a in (start, stop)]
        area = mpmath.quad(lambda w: (1 + mpmath.exp(-w)) ** horizon * (1 + mpmath.exp(w)), mpmath.linspace(*ends, 30))
        expected = float(area / ((1 - mpmath.mpf(1) / 6) * horizon))
    assert escape_time(horizon, start, stop, 6) == pytest.approx(expected, rel=1e-12)


def test_escape_time_is_the_time_of_the_flow():
    start, stop = 0.5, 0.5 ** (1 / 15)
    time, _ = quad(lambda w: 1 / relay_velocity(w, [15], 6), logit(start), logit(stop), epsabs=0, epsrel=1e-11)
    assert escape_time(15, start, stop, 6) == pytest.approx(time, rel=1e-10)


def test_escape_time_shapes_and_extremes():
    horizons = np.array([5, 15, 45])
    together = escape_time(horizons, 0.5, 0.5 ** (1 / horizons), 6)
    assert together.tolist() == [escape_time(h, 0.5, 0.5 ** (1 / h), 6) for h in horizons]
    assert escape_time(45, 0.3, 0.3, 6) == 0
    assert escape_time(45, 1e-12, 0.5, 6) == math.inf
    # Leading term start^-h / ((1 - 1/n) h^2 (1 - start)^2) of a long horizon from small attention.
    leading = 0.2**-200 / ((1 - 1 / 6) * 200**2 * 0.8**2)
    assert escape_time(200, 0.2, 0.5, 6) == pytest.approx(leading, rel=2 / 200)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 50), st.integers(2, 20), st.floats(-2, 12))
def test_handoff_exponent_ties_two_horizons(horizon, ratio, w):
    log_fixed = [h * np.log(clause_attention(w)) for h in (horizon, ratio * horizon)]
    assert log_fixed[1] == pytest.approx(handoff_exponent(ratio) * log_fixed[0], rel=1e-12)
    easy, hard = (h * -np.log1p((h - 1) * np.exp(-w)) for h in (horizon, ratio * horizon))
    success = np.exp(easy)
    if 1e-300 < success < 1:
        kappa = handoff_exponent(ratio, horizon, success)
        assert hard == pytest.approx(kappa * easy, rel=1e-13 / min(1, -easy))
        assert kappa < handoff_exponent(ratio, horizon) * (1 + 1e-13 / min(1, -easy))


def test_handoff_exponent_increases_to_its_dilute_limit():
    success = 1 - np.geomspace(0.9, 1e-12, 50)
    kappa = handoff_exponent(7, 5, success)
    assert (np.diff(kappa) > 0).all()
    assert kappa[-1] == pytest.approx(handoff_exponent(7, 5), rel=1e-11)
    assert handoff_exponent(1, 5, success) == pytest.approx(np.ones(50), rel=1e-12)


def log_stage_integral(exponent):
    """The stage time as it is defined, with 20 digits and an adaptive rule on the integration variable u."""
    with mpmath.workdps(20):
        kappa = mpmath.mpf(exponent)
        span = mpmath.log(kappa)
        orders = range(-int(48 / span) - 1, int(5 / span) + 2)

        def integrand(log_u):
            u = mpmath.exp(log_u)
            return 1 / (u * sum(kappa**j * mpmath.exp(-(kappa**j) * u) for j in orders))

        return float(mpmath.quad(integrand, mpmath.linspace(-span, 0, 6 if kappa < 100 else 20)))


@pytest.mark.parametrize("exponent", [1.49, 1.5, 2, 9, 225, 1e4])
def test_stage_time_by_quadrature(exponent):
    assert stage_time(exponent) == pytest.approx(log_stage_integral(exponent), rel=1e-13)


def test_stage_time_limits():
    close = 1 + np.geomspace(1e-12, 1e-3, 10)
    assert stage_time(close) == pytest.approx(np.log(close) ** 2, rel=1e-15)
    # First harmonic, valid while the second one is small.
    b = 2 * np.pi / np.log(9)
    harmonic = np.log(9) ** 2 / np.sqrt(1 - 4 * np.pi * b / np.sinh(np.pi * b))
    assert stage_time(9) == pytest.approx(harmonic, rel=2e-5)
    # For large exponents kappa / ln kappa, slowly and from above.
    large = np.array([1e3, 1e6, 1e12, 1e100, 1e300])
    excess = stage_time(large) * np.log(large) / large - 1
    assert (np.diff(excess) < 0).all()
    assert (excess > 0).all()
    assert excess[-1] < 1e-5


@pytest.mark.parametrize(("ratio", "dilute", "levels"), [(3, False, (9, 10)), (3, True, (6, 7)), (9, False, (5, 6))])
def test_stage_time_is_measured_on_an_endless_relay(ratio, dilute, levels):
    # Time between y = 1/e at one horizon and at the next, deep in a geometric ladder; the flow is not yet in the limit
    # of long horizons, which costs a relative error of the order of 1 / horizon.
    horizons = ratio ** np.arange(1.0, levels[1] + 5)
    contexts = horizons if dilute else 2
    reached = [logit_at(ratio ** float(level), dilute) for level in levels]
    time, _ = quad(lambda w: 1 / relay_velocity(w, horizons, 10**9, contexts), *reached, epsrel=1e-9)
    kappa = ratio**2 if dilute else ratio
    expected = stage_time(kappa) * len(horizons)
    assert time == pytest.approx(expected, rel=3 / ratio ** levels[0])


def logit_at(horizon, dilute):
    """Logit at which attention^horizon = 1/e."""
    crowd = horizon - 1 if dilute else 1
    return float(np.log(crowd) - np.log(np.expm1(1 / horizon)))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: uniform_error_success(0, 0.5, 3), "order"),
        (lambda: uniform_error_success(2.5, 0.5, 3), "order"),
        (lambda: uniform_error_success(6, 1.1, 3), "accuracy"),
        (lambda: uniform_error_success(6, -0.1, 3), "accuracy"),
        (lambda: uniform_error_success(6, np.nan, 3), "accuracy"),
        (lambda: uniform_error_success(1, 0.5, 3), "accuracy"),
        (lambda: uniform_error_success(6, 0.5, -1), "horizon"),
        (lambda: uniform_error_success(6, 0.5, [1, 2.5]), "horizon"),
        (lambda: normalized_success(1.5, 6), "success"),
        (lambda: normalized_success(0.5, 1), "order"),
        (lambda: walk_success(S3, np.ones(6), 3), "error_distribution"),
        (lambda: walk_success(S3, np.ones(5) / 5, 3), "error_distribution"),
        (lambda: walk_success(S3, [1.5, -0.5, 0, 0, 0, 0], 3), "error_distribution"),
        (lambda: walk_success(S3, np.ones(6) / 6, -1), "horizon"),
        (lambda: walk_decay_rate(S3, np.ones(6)), "error_distribution"),
        (lambda: clause_pair_law([0.5, 0.6], 0.5), "clause_law"),
        (lambda: clause_pair_law([0.5, 0.5], 1.5), "attention"),
        (lambda: clause_pair_law([0.5, 0.5], [0.5, 0.5]), "attention"),
        (lambda: pair_success(S3, np.ones(6) / 6, 3), "joint_distribution"),
        (lambda: pair_success(S3, np.ones((6, 6)) / 36, 0.5), "horizon"),
        (lambda: coset_floor(S3, np.ones(6)), "clause_law"),
        (lambda: reading_success(S3, [0, 0]), "permutations"),
        (lambda: attention_success(S3, np.ones((2, 2))), "attention"),
        (lambda: attention_success(S3, np.ones((3, 2)) / 2), "attention"),
        (lambda: attention_success(S3, np.eye(10)), "attention"),
        (lambda: attention_success(Z5, np.eye(23)), "attention"),
        (lambda: clause_attention(np.inf), "logit"),
        (lambda: clause_attention(0.0, 0), "context"),
        (lambda: relay_velocity(0.0, [], 6), "horizons"),
        (lambda: relay_velocity(0.0, [0], 6), "horizons"),
        (lambda: relay_velocity(0.0, [5, 15], 1), "order"),
        (lambda: relay_velocity(0.0, [5, 15], 6, [2, 2, 2]), "contexts"),
        (lambda: relay_velocity(np.nan, [5, 15], 6), "logit"),
        (lambda: escape_time(0, 0.5, 0.6, 6), "horizon"),
        (lambda: escape_time(5, 0.0, 0.6, 6), "start"),
        (lambda: escape_time(5, 0.5, 1.0, 6), "stop"),
        (lambda: escape_time(5, 0.6, 0.5, 6), "stop"),
        (lambda: escape_time(5, 0.5, 0.6, 1), "order"),
        (lambda: handoff_exponent(0), "ratio"),
        (lambda: handoff_exponent(-2, 5), "ratio"),
        (lambda: handoff_exponent(0.1, 5), "ratio"),
        (lambda: handoff_exponent(3, 1), "horizon"),
        (lambda: handoff_exponent(3, 5, 1.0), "normalized_success"),
        (lambda: handoff_exponent(3, None, 0.5), "normalized_success"),
        (lambda: next_ratio(1.0), "normalized_success"),
        (lambda: next_ratio(0.5, 0.6), "visible"),
        (lambda: next_ratio(0.5, 0.0), "visible"),
        (lambda: next_ratio(0.5, 0.1, 1), "horizon"),
        (lambda: stage_time(1.0), "exponent"),
        (lambda: stage_time([2, 0.5]), "exponent"),
        (lambda: stage_time(np.inf), "exponent"),
    ],
)
def test_arguments_outside_their_domain(call, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()


@given(y=st.floats(0.05, 0.99), share=st.floats(0.01, 0.99), horizon=st.integers(2, 200))
@settings(max_examples=60, deadline=None)
def test_next_ratio_inverts_the_handoff_exponent(y, share, horizon):
    visible = y ** (1 / share)  # below y
    assume(visible > 1e-12)
    assert next_ratio(y, visible) == pytest.approx(np.log(visible) / np.log(y))
    ratio = next_ratio(y, visible, horizon)
    assert y ** handoff_exponent(ratio, horizon, y) == pytest.approx(visible, rel=1e-6)
    assert 1 <= ratio <= next_ratio(y, visible) * (1 + 1e-12)


def test_next_ratio_of_clause_attention():
    """Independent of the exponent: attention that gives the y, then y of the longer chain in its own context."""
    w, h = 4.0, 5
    y = clause_attention(w, h) ** h
    assert next_ratio(y, clause_attention(w, 3 * h) ** (3 * h), h) == pytest.approx(3)
    assert next_ratio(y, y, h) == pytest.approx(1)
    assert next_ratio([0.5, 0.9], 0.1, horizon=[5, 15]).shape == (2,)


# A head that saturates


def test_saturated_decay_is_a_softmax_over_the_mixture():
    a, sharpness, order = 0.3, 8.0, 6
    mixture = np.full(order, (1 - a) / order) + a * np.eye(order)[0]
    law = np.exp(sharpness * mixture) / np.exp(sharpness * mixture).sum()
    assert saturated_decay(a, sharpness, order) == pytest.approx((order * law[0] - 1) / (order - 1), rel=1e-12)
    np.testing.assert_array_equal(saturated_decay([0.0], 5.0, 6), 0.0)


@pytest.mark.parametrize("w", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("ratio", [0.6, 3, 7])
def test_saturated_exponent_ties_two_horizons(w, ratio):
    lengths = 5 * np.array([1, ratio])
    decay = saturated_decay(1 / (1 + (lengths - 1) * np.exp(-w)), 10.0, 6)
    y, following = decay**lengths
    assert saturated_exponent(ratio, 5, y, 10.0, 6) == pytest.approx(np.log(following) / np.log(y), rel=1e-6)


def test_saturated_exponent_where_no_attention_is_enough():
    assert np.isnan(saturated_exponent(3, 5, 0.9999, 4.0, 6))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: saturated_decay(1.1, 1.0, 6), "attention"),
        (lambda: saturated_decay(0.5, 0.0, 6), "sharpness"),
        (lambda: saturated_decay(0.5, 1.0, 1), "order"),
        (lambda: saturated_exponent(0.0, 5, 0.5, 1.0, 6), "ratio"),
        (lambda: saturated_exponent(3, 1, 0.5, 1.0, 6), "horizon"),
        (lambda: saturated_exponent(3, 5, 1.0, 1.0, 6), "normalized_success"),
    ],
)
def test_saturating_heads_refuse_what_is_outside_their_domain(call, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()
