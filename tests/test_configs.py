"""The ready configurations: read by the parsers that will read them on a GPU, as far as a machine without one can."""

import dataclasses
import re

import pytest
import yaml
from conftest import ROOT

CONFIGS = ROOT / "configs"
MODELS = sorted(CONFIGS.glob("*.yaml"))
MACHINES = sorted((CONFIGS / "accelerate").glob("*.yaml"))
ON_CPU = {"bf16": False, "use_cpu": True, "use_vllm": False, "vllm_enable_sleep_mode": False, "report_to": "none"}
GPUS = 8


@pytest.mark.parametrize("file", MODELS, ids=lambda path: path.stem)
def test_trl_reads_the_arguments(file, tmp_path):
    from trl import GRPOConfig, TrlParser

    (tmp_path / "here.yaml").write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | ON_CPU))
    arguments = ["--config", str(tmp_path / "here.yaml"), "--output_dir", str(tmp_path)]
    (config,) = TrlParser((GRPOConfig,)).parse_args_and_config(arguments)
    known = {field.name for field in dataclasses.fields(GRPOConfig)}
    assert yaml.safe_load(file.read_text()).keys() <= known
    assert config.learning_rate == 1e-6
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps * GPUS
    assert rows == 1024 == 128 * config.num_generations


@pytest.mark.parametrize("file", MODELS, ids=lambda path: path.stem)
def test_the_command_reads_the_arguments(file, tmp_path, monkeypatch):
    """Through ``rlvr train``'s own reading, with what needs a GPU switched off."""
    from rlvr_lib.trl.run import Run, read_options

    words = [word for name, value in ON_CPU.items() for word in (f"--{name}", str(value))]
    *_, config = read_options(Run("math", "some/model", 7, options=words, arguments_file=file), tmp_path)
    assert (config.max_steps, config.loss_type, config.num_generations) == (7, "dr_grpo", 8)


@pytest.mark.parametrize("file", MACHINES, ids=lambda path: path.stem)
def test_accelerate_reads_the_machine(file):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    machine, text = load_config_from_file(str(file)), yaml.safe_load(file.read_text())
    assert machine.num_processes == text["num_processes"]
    assert machine.num_processes % max(machine.num_machines, 1) == 0
    known = {action.dest for action in launch_command_parser()._actions}
    for part in ("fsdp_config", "deepspeed_config"):
        assert text.get(part, {}).keys() <= known


def test_every_file_is_on_the_page():
    page = (ROOT / "book" / "in_your_own_run.md").read_text()
    for file in (*MODELS, *MACHINES):
        assert file.name in page, file.name
    for name in re.findall(r"configs/([\w./-]+\.yaml)", page):
        assert (CONFIGS / name).is_file(), name
