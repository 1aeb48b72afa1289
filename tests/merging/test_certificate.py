import json
import math
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2ForSequenceClassification

from ftlab.errors import BadInput, CourseError
from ftlab.merging import certificate
from ftlab.merging import merge as merging
from tests.merging import merge_cases
from tests.merging.merge_cases import DTYPES, NAMES, load, save_adapter, save_base, tensors
from tests.nightly import combinations

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [
    "a dull film , and yet the ending is worth the wait",
    "the best thing that i have seen this year",
    "two hours of nothing",
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Bases of each architecture in each dtype."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        (name, dtype): save_base(folder / f"{name}-{str(dtype).removeprefix('torch.')}", name, dtype)
        for name in NAMES
        for dtype in DTYPES
    }


@pytest.fixture
def base(bases):
    return bases["gpt2", torch.float32]


def apart(base, adapter):
    return PeftModel.from_pretrained(load(base), adapter)


def certify(base, adapter, merged, out):
    """The certificate of a model in memory and one on the disk, for the adapter on its base."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    return certificate.certificate(apart(base, adapter), merged, load(out), tokenizer, PROMPTS)


@pytest.mark.parametrize(
    ("name", "dtype", "options"), combinations(NAMES, DTYPES, [{}, {"use_rslora": True}, {"use_dora": True}]), ids=str
)
def test_a_right_merge_is_certified(name, dtype, options, bases, tmp_path):
    base = bases[name, dtype]
    adapter = save_adapter(tmp_path / "adapter", base, **options)
    merging.merge(base, adapter, tmp_path / "out")
    found = certify(base, adapter, apart(base, adapter).merge_and_unload(), tmp_path / "out")
    assert found.ok, found.failures()
    assert found.dtype == str(dtype).removeprefix("torch.")
    assert found.merged.share <= certificate.TOLERANCE[found.dtype] / 1.5
    assert found.effect > 10 * found.merged.share
    assert found.reloaded.difference == found.merged.difference  # the files hold what PEFT's merge held
    assert found.loss == pytest.approx(found.merged.loss, abs=1e-2)
    assert found.merged.same_next > 0.9
    assert 0 <= found.merged.kl + 1e-9 < 1e-4


def scaled_twice(right):
    return lambda weight, factors, scaling, kind: right(weight, factors, 2 * scaling, kind)


def one_layer_left_out(right):
    seen = []

    def add(weight, factors, scaling, kind):
        seen.append(kind)
        if len(seen) % 2 == 0:  # each case has two deltas, one a layer
            yield from right(weight, factors, scaling, kind)

    return add


def transposed(right):
    other = {"Linear": "Conv1D", "Conv1D": "Linear"}
    return lambda weight, factors, scaling, kind: right(weight, factors, scaling, other[kind])


WRONG = {"scaled by 2": scaled_twice, "one layer left out": one_layer_left_out, "transposed": transposed}
SQUARE = {"gpt2": ["attn.c_proj"], "phi": ["q_proj"], "llama": ["q_proj"]}  # so that it can be transposed


@pytest.mark.parametrize(("name", "dtype", "wrong"), combinations(NAMES, DTYPES, list(WRONG)), ids=str)
def test_a_wrong_merge_is_refused_and_removed(name, dtype, wrong, bases, tmp_path, monkeypatch):
    base = bases[name, dtype]
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=SQUARE[name], size=0.5)
    certificate.merge_with_certificate(base, adapter, tmp_path / "right", PROMPTS)
    monkeypatch.setattr(merging, "add", WRONG[wrong](merging.add))
    with pytest.raises(CourseError) as raised:
        certificate.merge_with_certificate(base, adapter, tmp_path / "out", PROMPTS)
    told = str(raised.value)
    assert "does not do what the adapter does: the model merged, loaded again" in told
    assert f"rounding to {str(dtype).removeprefix('torch.')} explains" in told
    assert "nothing was kept" in told
    assert "\n" not in told
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "right"}
    # The same by hand, with the wrong files in both places.
    merging.merge(base, adapter, tmp_path / "wrong")
    found = certify(base, adapter, load(tmp_path / "wrong"), tmp_path / "wrong")
    assert not found.ok
    assert len(found.failures()) == 2
    assert "FAILED: the model merged " in found.markdown()


def test_what_a_certified_merge_leaves(base, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", base)
    found = certificate.merge_with_certificate(base, adapter, tmp_path / "out", PROMPTS)
    merging.merge(base, adapter, tmp_path / "plain")
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"README.md", "certificate.json"}
    plain, certified = tensors(tmp_path / "plain"), tensors(tmp_path / "out")
    assert all(torch.equal(plain[name], certified[name]) for name in plain)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == "gpt2"
    record = json.loads((tmp_path / "out" / "certificate.json").read_text(encoding="utf-8"))
    assert record["ok"] is True
    assert record["failures"] == []
    assert record["merged"]["share"] == found.merged.share
    assert set(record["sha256"]) == {"base", "adapter"}
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nbase_model: gpt2-float32\n")
    assert "# gpt2-float32 with adapter merged in" in card
    assert "8 of 28 tensors differ" in card
    assert found.markdown() in card
    assert str(tmp_path) not in card  # a path names a person
    assert record["sha256"]["base"] in card


@pytest.mark.parametrize("own", [True, False], ids=["the adapter's", "the base's"])
def test_the_card_says_whose_chat_template_the_merged_model_has(own, base, tmp_path):
    told = shutil.copytree(base, tmp_path / "told")
    adapter = save_adapter(tmp_path / "adapter", told)
    (told / "chat_template.jinja").write_text("of the base {{ messages }}", encoding="utf-8")
    if own:
        (adapter / "chat_template.jinja").write_text("of the adapter {{ messages }}", encoding="utf-8")
    (note,) = (one for one in certificate.merge_with_certificate(told, adapter, tmp_path / "out", PROMPTS).notes
               if "chat template" in one)  # fmt: skip
    assert note.startswith("The chat template is the adapter's" if own else "The chat template is not the adapter's")
    assert note in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_table_and_the_card_say_the_same(base, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", base)
    merging.merge(base, adapter, tmp_path / "out")
    found = certify(base, adapter, load(tmp_path / "out"), tmp_path / "out")
    table = found.table()
    assert table.index.tolist() == ["unmerged adapter", "merged", "merged, loaded again"]
    assert table["held-out loss"].tolist() == [found.loss, found.merged.loss, found.reloaded.loss]
    assert table["largest logit difference"].tolist()[0] == 0
    lines = found.markdown().splitlines()
    assert lines[0] == "## Merge certificate"
    assert lines[2].startswith(f"Passed. The same 3 texts ({found.positions} positions)")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 5
    assert {row.count("|") for row in rows} == {8}
    assert f"{found.loss:.4f}" in rows[2]


def test_the_numbers_are_what_they_are_called(base, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", base)
    one, other, plain = apart(base, adapter), load(base), load(base)
    found = certificate.certificate(one, other, load(base), AutoTokenizer.from_pretrained(base), PROMPTS)
    rows = [AutoTokenizer.from_pretrained(base)(prompt)["input_ids"] for prompt in PROMPTS]
    with torch.inference_mode():
        a = [one(input_ids=torch.tensor([row])).logits[0] for row in rows]
        b = [plain(input_ids=torch.tensor([row])).logits[0] for row in rows]
        losses = [plain(input_ids=torch.tensor([row]), labels=torch.tensor([row])).loss for row in rows]
    flat_a, flat_b = torch.cat(a), torch.cat(b)
    p, q = flat_a.softmax(-1), flat_b.softmax(-1)
    assert found.positions == len(flat_a)
    assert found.merged.difference == pytest.approx(float((flat_a - flat_b).abs().max()))
    assert found.merged.share == pytest.approx(float((flat_a - flat_b).abs().max() / flat_a.abs().max()))
    assert found.effect == pytest.approx(found.merged.share)  # the base itself lacks all of the adapter's effect
    assert found.merged.lost == pytest.approx(1.0)
    assert found.merged.kl == pytest.approx(float((p * (p.log() - q.log())).sum(-1).mean()), rel=1e-3)
    assert found.merged.same_next == pytest.approx(float((flat_a.argmax(-1) == flat_b.argmax(-1)).float().mean()))
    weights = [len(row) - 1 for row in rows]
    wanted = sum(w * float(loss) for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    assert found.merged.loss == pytest.approx(wanted, rel=1e-5)
    assert not found.ok


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_models_are_left_as_they_were(dtype, bases, tmp_path):
    base = bases["phi", dtype]
    adapter = save_adapter(tmp_path / "adapter", base, use_dora=True)
    merging.merge(base, adapter, tmp_path / "out")
    models = apart(base, adapter).train(), load(tmp_path / "out"), load(tmp_path / "out").train()
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    certificate.certificate(*models, AutoTokenizer.from_pretrained(base), PROMPTS)
    assert [model.training for model in models] == [True, False, True]
    for model, held in zip(models, before, strict=True):
        for name, tensor in model.state_dict().items():
            assert tensor.dtype == held[name].dtype
            assert torch.equal(tensor, held[name])


@pytest.mark.parametrize(
    ("dtype", "options"),
    [*((dtype, {}) for dtype in DTYPES), (torch.float32, {"use_dora": True})],  # DoRA's own norms are rounded in half
    ids=str,
)
def test_an_adapter_that_has_learned_nothing_loses_nothing(dtype, options, bases, tmp_path):
    base = bases["llama", dtype]
    adapter = save_adapter(tmp_path / "adapter", base, size=0.0, **options)
    assert certificate.merge_with_certificate(base, adapter, tmp_path / "out", PROMPTS).ok


def test_an_adapter_that_bf16_cannot_hold_is_refused_and_fp32_holds_it(bases, tmp_path):
    """A delta of less than the last bit of the weights: the merge is right, and the adapter is gone."""
    small = {"size": 1e-5}
    for dtype, kept in ((torch.bfloat16, False), (torch.float32, True)):
        base = bases["phi", dtype]
        adapter = save_adapter(tmp_path / f"adapter-{kept}", base, **small)
        if kept:
            assert certificate.merge_with_certificate(base, adapter, tmp_path / "out", PROMPTS).ok
        else:
            with pytest.raises(CourseError, match=r"of what the adapter does .* float32"):
                certificate.merge_with_certificate(base, adapter, tmp_path / "out", PROMPTS)


def test_a_model_that_answers_nan_is_not_certified(base, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", base)
    broken = load(base)
    broken.transformer.ln_f.bias.data[3] = float("nan")
    found = certificate.certificate(
        apart(base, adapter), load(base), broken, AutoTokenizer.from_pretrained(base), PROMPTS
    )
    assert math.isnan(found.reloaded.share)
    assert not found.ok
    assert any("loaded again" in failure for failure in found.failures())


def test_trained_biases_cannot_be_turned_off_so_their_effect_is_not_told(bases, tmp_path):
    base = bases["phi", torch.float32]
    adapter = save_adapter(tmp_path / "adapter", base, bias="all")
    found = certificate.merge_with_certificate(base, adapter, tmp_path / "out", PROMPTS)
    assert found.ok
    assert found.effect is None
    assert found.merged.lost is None
    assert "The adapter itself" not in found.markdown()


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ([], "needs texts to measure on"),
        ("a single text", "give a list"),
        (["fine words", ""], "prompt 1 is empty"),
        (["x"], "prompt 0 is empty or a single token"),
        (["word " * 200], "prompt 0 has 4.. tokens, and the model has positions for 128; shorten it"),
    ],
    ids=["none", "a text", "empty", "one token", "too long"],
)
def test_prompts_that_prove_nothing_are_refused_before_anything_is_written(prompts, told, base, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", base)
    with pytest.raises(BadInput, match=told):
        certificate.merge_with_certificate(base, adapter, tmp_path / "out", prompts)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}


def test_a_model_merged_in_place_is_not_compared_with_itself(base, tmp_path):
    model = apart(base, save_adapter(tmp_path / "adapter", base))
    merged = model.merge_and_unload()
    with pytest.raises(BadInput, match="share their weights"):
        certificate.certificate(model, merged, load(base), AutoTokenizer.from_pretrained(base), PROMPTS)


def test_only_a_causal_language_model_can_be_certified(tmp_path, base):
    GPT2ForSequenceClassification.from_pretrained(base).save_pretrained(tmp_path / "classifier")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "classifier")
    with pytest.raises(BadInput, match="not a causal language model"):
        certificate.merge_with_certificate(tmp_path / "classifier", tmp_path, tmp_path / "out", PROMPTS)


def test_what_merge_refuses_is_refused_here_too(base, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", base)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"has no adapter_model\.safetensors"):
        certificate.merge_with_certificate(base, adapter, tmp_path / "out", PROMPTS)
    with pytest.raises(BadInput, match="base's own folder"):
        certificate.merge_with_certificate(base, adapter, base, PROMPTS)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}


def test_the_cases_hold_what_they_say(bases):
    for (_name, dtype), base in bases.items():
        assert {tensor.dtype for tensor in tensors(base).values()} == {dtype}
        assert len(list(base.glob("*.safetensors"))) > 1
    assert merge_cases.VOCABULARY == 600
