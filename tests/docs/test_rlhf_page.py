"""The DPO run of the page runs as printed, and the table names what TRL has."""

import re

import pytest


@pytest.fixture(scope="module")
def page(repository) -> str:
    return (repository / "docs" / "rlhf_dpo_sft.md").read_text(encoding="utf-8")


def test_the_chosen_answers_gain_against_the_rejected_ones(page, tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "docs/rlhf_dpo_sft.md", "exec"), names)
    margins = names["margins"]
    assert margins[0] == 0  # the model is its own reference before the first step
    assert margins[-1] > 0.1
    assert margins == sorted(margins)


def test_the_trainers_of_the_table_exist_and_ppo_does_not(page):
    import trl
    from trl.experimental import orpo

    named = set(re.findall(r"`(\w+Trainer)`", page))
    assert {"SFTTrainer", "RewardTrainer", "DPOTrainer", "KTOTrainer", "GRPOTrainer", "RLOOTrainer"} <= named
    for name in named - {"ORPOTrainer"}:
        assert hasattr(trl, name), name
    assert hasattr(orpo, "ORPOTrainer")
    assert not hasattr(trl, "PPOTrainer")
    assert f"TRL {'.'.join(trl.__version__.split('.')[:2])}" in page


def test_the_defaults_that_the_page_names_are_trls_own():
    from trl import DPOConfig, GRPOConfig, RLOOConfig

    def default(config, name):
        return config.__dataclass_fields__[name].default

    assert default(GRPOConfig, "beta") == 0
    assert default(GRPOConfig, "num_generations") == 8
    assert default(RLOOConfig, "beta") > 0
    assert default(DPOConfig, "learning_rate") == 1e-6
