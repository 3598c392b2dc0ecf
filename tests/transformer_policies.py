"""Small transformers and a plain reference of their laws, that several test modules share."""

import itertools

import numpy as np

from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy
from rlvr_lib.testbeds.transformer.problems import (
    draw_problems,
)
from rlvr_lib.theory.groups import cyclic_group, symmetric_group

FALSE_ALARM = 1e-6
S3 = symmetric_group(3)
EMBEDDING = np.random.default_rng(7).standard_normal((4, 3))
CASES = {
    "content-linear-fixed": (S3, AttentionPolicy(4), "fixed"),
    "content-linear-chain": (S3, AttentionPolicy(4), "chain"),
    "content-softmax-fixed": (S3, AttentionPolicy(4, sharpness=4.0), "fixed"),
    "embedding-softmax-chain": (cyclic_group(4), AttentionPolicy(4, sharpness=3.0, embedding=EMBEDDING), "chain"),
    "relative-linear-fixed": (S3, AttentionPolicy(4, "relative"), "fixed"),
    "relative-softmax-chain": (cyclic_group(5), AttentionPolicy(4, "relative", sharpness=5.0), "chain"),
}


def make(case, horizons=(1, 2, 3), per_horizon=2, seed=0):
    group, policy, context = CASES[case]
    consecutive = policy.addressing == "relative"
    problems = draw_problems(
        group, horizons, per_horizon, seed, names=policy.names, context=context, consecutive=consecutive
    )
    noise = np.random.default_rng(seed).standard_normal(policy.size)
    return TransformerTestbed(policy, problems, policy.initial(1.0).numpy() + 0.5 * noise)


def reference_law(testbed, prompt, theta=None):
    """[h, n]: the policy from its description, clause by clause, without tensors."""
    policy, problems = testbed.policy, testbed.problems
    theta = testbed.theta if theta is None else theta
    order = problems.group.order
    rows = []
    for step in range(int(problems.horizon[prompt])):
        query, weights, mass = int(problems.name[prompt, step]), {}, np.zeros(order)
        for key in range(policy.names):
            if problems.element[prompt, key] >= 0:
                if policy.addressing == "relative":
                    logit = theta[key - query + policy.names - 1]
                elif policy.embedding is None:
                    logit = theta[query * policy.names + key]
                else:
                    logit = EMBEDDING[query] @ theta.reshape(3, 3) @ EMBEDDING[key]
                weights[key] = np.exp(logit)
        for key, weight in weights.items():
            mass[int(problems.element[prompt, key])] += weight / sum(weights.values())
        if policy.sharpness is not None:
            mass = np.exp(policy.sharpness * mass)
        rows.append(mass / mass.sum())
    return np.array(rows)


def reference_responses(testbed, prompt, theta=None):
    """Running products [M, h], probabilities and rewards of all responses, in the order of ``enumerate``."""
    law, table = reference_law(testbed, prompt, theta), testbed.problems.group.table
    h, order = law.shape
    right = [int(testbed.problems.element[prompt, name]) for name in testbed.problems.name[prompt, :h]]
    target = 0
    for element in right:
        target = table[target, element]
    products = np.array(list(itertools.product(range(order), repeat=h)))
    prob = np.ones(len(products))
    for row, response in enumerate(products):
        current = 0
        for step, product in enumerate(response):
            prob[row] *= law[step, list(table[current]).index(product)]
            current = product
    return products, prob, (products[:, -1] == target).astype(float)
