"""``rlvr train --engine trl`` from the command line: runs, resumes, checkpoints, answers in mathematics, bad input."""

import json
import shutil

import pytest
import torch
from conftest import ROOT
from typer.testing import CliRunner

from rlvr_lib import cli
from rlvr_lib.testbeds.grpo import one_thread
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.qwen.forward import tiny_model
from rlvr_lib.trl import run as trl_run
from rlvr_lib.trl.rollouts import RunFailed
from rlvr_lib.trl.run import Run, last_whole_checkpoint, read_options, train_trl
from rlvr_lib.trl.tasks import final_answer, math_task, math_verifier

NAMES = ("success_rate", "gap_alignment", "gradient_snr", "critical_learning_rate", "optimal_baseline")


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def train(out, *options, steps=2):
    command = ["train", "--engine", "trl", "--out", out, "--steps", steps, *options]
    return CliRunner().invoke(cli.app, [str(part) for part in command])


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def small(**options):
    chosen = {"steps": 3, "group_size": 4, "prompts": 4, "learning_rate": 1e-3} | options
    return Run("group-word", "tiny", **chosen | {"options": ["--optim", "adamw_torch", *chosen.get("options", ())]})


SMALL = ("--group-size", 4, "--prompts", 4)


# ---------------------------------------------------------------- runs


def test_the_tiny_model_trains_and_writes_what_the_built_in_engine_writes(tmp_path):
    ran = train(tmp_path, "--task", "group-word", *SMALL, "--learning-rate", 0.1)
    assert ran.exit_code == 0, ran.output
    assert "in the last" in ran.output
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [0, 1]
    assert all(line.keys() >= set(NAMES) for line in found)
    assert [line.get("world_size") for line in found] == [1, None]
    assert found[0]["scored"].startswith("all: 75,136 numbers")
    again = train(tmp_path / "b", *SMALL, "--model", tmp_path / "model", "--lora", 4, "--scores", "last-layer")
    assert again.exit_code == 0, again.output
    assert lines(tmp_path / "b")[0]["scored"].startswith("last-layer")
    assert (tmp_path / "b" / "model" / "adapter_model.safetensors").is_file()


def test_a_saved_model_is_the_trained_one(tmp_path):
    train_trl(small(steps=1), tmp_path)
    saved = QwenTestbed(model=str(tmp_path / "model"), alphabet="vocabulary")
    fresh = QwenTestbed(alphabet="vocabulary")
    assert 0 < (torch.tensor(saved.theta) - torch.tensor(fresh.theta)).abs().max() < 0.01
    assert saved.tokenizer.get_vocab() == fresh.tokenizer.get_vocab()


def test_a_resumed_run_takes_the_same_next_step(tmp_path):
    """Stopped after two of four steps and begun again: the same numbers at every step, the same parameters."""
    words = "--save_steps 1 --save_total_limit 4 --scale_rewards none --baseline lagged --snr-rate"
    options = words.split()
    straight = train_trl(small(steps=4, options=options), tmp_path / "a")
    train_trl(small(steps=2, options=options), tmp_path / "b")
    resumed = train_trl(small(steps=4, options=options), tmp_path / "b")
    assert [record["step"] for record in resumed] == [0, 1, 2, 3]
    for one, other in zip(straight, resumed, strict=True):
        assert one == other
    theta = [QwenTestbed(model=str(tmp_path / run / "model"), alphabet="vocabulary").theta for run in "ab"]
    assert (theta[0] == theta[1]).all()
    with pytest.raises(ValueError, match="a folder of a run with other seed"):
        train_trl(small(steps=4, options=options, seed=1), tmp_path / "b")


def test_only_whole_checkpoints_count(tmp_path):
    assert last_whole_checkpoint(tmp_path) is None
    for step, state in ((9, '{"global_step": 9}'), (10, '{"global_step": 10}'), (11, '{"global'), (12, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


# ---------------------------------------------------------------- mathematics


PROBLEMS = [
    {"question": "Tom has 3 apples and buys 4. How many has he?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
    {"question": "A box holds 12 eggs. How many do 100 boxes hold?", "answer": "100 * 12\n#### 1,200"},
    {"problem": "Half of 5?", "solution": "It is $\\boxed{\\frac{5}{2}}$."},
    {"problem": "Solve x + 1 = 0.", "answer": "-1"},
]


def byte_checkpoint(folder, template=None):
    """An untrained Qwen whose tokenizer reads any text, a byte at a time."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<end>": 1} | {letter: 2 + place for place, letter in enumerate(letters)}
    reader = Tokenizer(models.BPE(vocabulary, []))
    reader.pre_tokenizer, reader.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=reader, pad_token="<pad>", eos_token="<end>")
    tokenizer.chat_template = template
    tiny_model(len(vocabulary), 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mathematics")
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    byte_checkpoint(folder / "plain")
    byte_checkpoint(folder / "chat", TEMPLATE)
    return folder


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_a_file_of_problems_runs_end_to_end(files, tmp_path, style):
    ran = train(
        tmp_path, "--model", files / style, "--task", files / "problems.jsonl", "--prompt", style, *SMALL,
        "--max-completion-length", 6,
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    found = lines(tmp_path)
    assert len(found) == 2
    assert found[0]["success_rate"] == 0
    assert found[0]["gap_alignment"] is None


def test_gsm8k_and_math_read_local_copies(files):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(files / "chat")
    for name in ("gsm8k", "math"):
        task = math_task(name, str(files / "problems.jsonl"), tokenizer, "chat")
        assert task.data["solution"] == [f"\\boxed{{{answer}}}" for answer in ("7", "1200", "\\frac{5}{2}", "-1")]
        assert "boxed" in task.data[0]["prompt"][0]["content"]


def test_answers_are_compared_as_mathematics():
    chat = [[{"role": "assistant", "content": "So it is $\\boxed{2.5}$."}]]
    assert math_verifier(chat, ["\\boxed{\\frac{5}{2}}"]) == [1.0]
    said = {
        "The answer is \\boxed{1200}": 1, "\\boxed{1,200}": 1, "The final answer is $1200$.": 1, "I think 1200": 0,
        "\\boxed{1201}": 0, "": 0, "\\boxed{": 0,
    }  # fmt: skip
    assert math_verifier(list(said), ["\\boxed{1200}"] * 7) == list(said.values())
    assert final_answer("so \\boxed{\\frac{1}{2}} it is") == "\\frac{1}{2}"
    assert final_answer("\\boxed{open") == "\\boxed{open"
    assert final_answer(" 12 ") == "12"


# ---------------------------------------------------------------- bad input


def refused(files, tmp_path, *options):
    ran = train(tmp_path / "out", *options)
    assert isinstance(ran.exception, ValueError), ran.output
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
    return str(ran.exception)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "{files}/none.jsonl", "--model", "{files}/plain"], "task must be a file that exists"),
        (["--task", "gsm8k", "--model", "{files}/chat"], "data must be a readable file or folder, or a name"),
        (["--task", "gsm8k", "--model", "{files}/chat", "--data", "some/where"], "data must be a readable file"),
        (["--task", "chess", "--model", "{files}/chat"], "task must be one of group-word"),
        (
            ["--task", "{files}/problems.jsonl", "--model", "{files}/plain"],
            "chat template, or used with --prompt plain",
        ),
        (["--task", "{files}/problems.jsonl"], "with the model tiny"),
        (["--model", "some/where"], "model must be a readable checkpoint or a reachable name"),
        (["--model", "no such place"], "model must be a folder, or a name on the hub"),
        (["--estimator", "rloo"], "--estimator must be left out: TRL has --scale_rewards"),
        (["--loss_type", "rloo"], "rloo"),
        (["--learning-rat", "1"], "names that rlvr train or trl.GRPOConfig has, got ['--learning-rat', '1']"),
        (["--epsilon", "small"], "invalid float value: 'small'"),
        (["--max_steps", "9"], "max_steps must be left out, since rlvr train's own options make it 2, got 9"),
        (["--group-size", "4", "--num_generations", "8"], "num_generations must be left out"),
        (["--prompts", "1", "--gradient_accumulation_steps", "3"], "prompts times group size must be a multiple of 3"),
        (["--logging_steps", "5"], "logging_steps must be at most the 2 steps"),
        (["--data", "here.jsonl"], "task must be another one, or used without data"),
        (["--scores", "first"], "scores must be one of"),
        (["--baseline", "lagged"], 'scale_rewards must be "none"'),
        (["--beyond", "stop"], "beyond must be one of"),
        (["--arguments", "none.yaml"], "arguments must be a YAML file that exists"),
        (["--world-size", "2"], "world_size must be 2; start them with torchrun, got '1 processes'"),
        (["--prompt", "song", "--task", "{files}/problems.jsonl", "--model", "{files}/chat"], "prompt must be one of"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(files, tmp_path, options, said):
    assert said in refused(files, tmp_path, *(option.format(files=files) for option in options))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "How many?"}, "row 5 of .* must be one with answer or solution"),
        ({"answer": "7"}, "row 5 of .* must be one with question or problem or prompt"),
        ({"question": "How many?", "answer": ""}, "row 5 of .* must be one with answer or solution"),
    ],
)
def test_rows_without_a_question_or_an_answer_are_named(files, tmp_path, row, said):
    file = tmp_path / "rows.jsonl"
    file.write_text((files / "problems.jsonl").read_text() + json.dumps(row) + "\n")
    import re

    assert re.search(said, refused(files, tmp_path, "--task", file, "--model", files / "chat"))


def test_groups_of_one_are_refused(tmp_path):
    ran = train(tmp_path, "--group-size", 1)
    assert ran.exit_code == 2
    assert "group-size" in ran.output


@pytest.mark.parametrize("option", ["--lora", "--world-size", "--bta"])
def test_the_trainers_own_options_need_the_trainer(tmp_path, option):
    ran = CliRunner().invoke(cli.app, ["train", "--out", str(tmp_path), "--steps", "1", option, "4"])
    assert isinstance(ran.exception, ValueError)
    assert f"{option} must be left out, or used with --engine trl" in str(ran.exception)


def test_every_option_of_the_trainer_is_taken(tmp_path):
    words = "--beta 0.04 --loss-type=grpo --num_iterations 2 --no-fresh --limit 2 --lora 3 --mask_truncated_completions"
    inputs, measure, act, config = read_options(small(options=words.split(), prompts=None), tmp_path)
    assert (inputs.lora, measure.fresh, act.limit) == (3, False, 2.0)
    assert (config.beta, config.loss_type, config.num_iterations, config.optim) == (0.04, "grpo", 2, "adamw_torch")
    assert config.mask_truncated_completions
    assert (config.num_generations, config.per_device_train_batch_size, config.max_steps) == (4, 32, 3)
    *_, config = read_options(small(options=["--gradient_accumulation_steps", "2"]), tmp_path)
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 4 * 4


def test_arguments_come_from_a_file_and_options_win(tmp_path):
    file = tmp_path / "arguments.yaml"
    file.write_text(
        "learning_rate: 1e-6\nnum_generations: 8\nper_device_train_batch_size: 8\nuse_cpu: true\nbf16: false\n"
        "logging_steps: 1\nactivation_checkpointing: false\nloss_type: dapo\n"
    )
    ran = train(tmp_path / "a", "--arguments", file, "--learning-rate", 0.25, steps=1)
    assert ran.exit_code == 0, ran.output
    assert lines(tmp_path / "a")[0]["learning_rate"] == 0.25
    file.write_text(file.read_text() + "no_such_argument: 1\n")
    with pytest.raises(ValueError, match="no_such_argument"):
        train_trl(small(arguments_file=file), tmp_path / "b")
    for text, said in (("- a\n- b\n", "arguments must be"), ("a: [\n", "arguments must be"), ("1: 2\n", "strings"),
                       ("use_cpu: true\nbf16: false\nseed: 5\n", "seed must be left out")):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            train_trl(small(arguments_file=file), tmp_path / "c")


def test_a_failed_run_is_one_line_and_exit_code_one(tmp_path, monkeypatch):
    def fail(run, out):
        raise RunFailed("the loss is nan at step 3")

    monkeypatch.setattr(trl_run, "train_trl", fail)
    ran = train(tmp_path)
    assert ran.exit_code == 1
    assert "rlvr: the loss is nan at step 3" in ran.output


def test_a_missing_package_is_a_failed_run(tmp_path, monkeypatch):
    def absent(**_):
        raise ImportError("vllm is not\ninstalled")

    monkeypatch.setattr(trl_run, "MeasuredGRPOTrainer", absent)
    with pytest.raises(RunFailed, match="the trainer could not be built: vllm is not installed"):
        train_trl(small(), tmp_path)


def test_a_corrupt_checkpoint_folder_does_not_stop_a_run(tmp_path):
    train_trl(small(steps=1, options=["--save_steps", "1"]), tmp_path)
    shutil.copytree(tmp_path / "checkpoints" / "checkpoint-1", tmp_path / "checkpoints" / "checkpoint-2")
    (tmp_path / "checkpoints" / "checkpoint-2" / "trainer_state.json").write_text("{")
    records = train_trl(small(steps=2, options=["--save_steps", "1"]), tmp_path)
    assert [record["step"] for record in records] == [0, 1]


def test_the_folder_of_configurations_is_documented():
    assert (ROOT / "configs").is_dir()
