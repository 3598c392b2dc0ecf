import pytest
from qwen_policies import S3, scrambled

from rlvr_lib.testbeds.group_tasks import WordProblem
from rlvr_lib.testbeds.qwen import QwenTestbed


@pytest.fixture(scope="session")
def warm():
    """The default testbed, warm start included, from the shared cache."""
    return QwenTestbed()


@pytest.fixture(scope="session")
def short():
    """A float64 testbed on words of two elements, 259 responses each, with a policy far from uniform."""
    return scrambled(3, task=WordProblem(S3, (2,), 3))
