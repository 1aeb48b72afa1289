"""A cache or a folder that another version wrote: read rightly, made anew, or refused in one sentence."""

import json

import pytest

from ftlab.errors import BadInput
from ftlab.freezing import store
from ftlab.training.checkpoints import checkpoint
from tests.faults.operations import found
from tests.nightly import few_by_day
from tests.training.test_resume import written

ENTRY = {"bytes": 15_000, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "record",
    few_by_day(
        [
            "", "{", "[]", "7", "null", '{"files": []}', '{"files": {}}', '{"files": null}',
            '{"files": {"two.txt": 15000}}',
            '{"files": {"two.txt": {"size": 15000, "sha256": "0"}}}', '{"files": {"two.txt": {"bytes": 15000}}}',
            json.dumps({"files": {"gone.txt": ENTRY}}), json.dumps({"format": 2, "content": {"two.txt": ENTRY}}),
        ],
        "{", "[]", '{"files": {"two.txt": 15000}}', json.dumps({"files": {"gone.txt": ENTRY}}),
    ),
)  # fmt: skip
def test_a_record_of_an_asset_in_another_form_is_fetched_again(server, fetched, record):
    place, before = fetched
    (place / "home" / "assets" / "tiny-1.0" / "asset.json").write_text(record, encoding="utf-8")
    ended = server.run("fetch", place)
    assert ended.code == 0, ended.said
    assert "tiny: fetched" in ended.said
    assert found(place) == before


@pytest.fixture(scope="module")
def fetched(server, tmp_path_factory):
    place = tmp_path_factory.mktemp("fetched")
    assert server.run("fetch", place).code == 0
    return place, found(place)


def test_an_asset_of_an_older_release_stays_beside_the_new_one(server, tmp_path):
    older = tmp_path / "home" / "assets" / "tiny-0.9"
    older.mkdir(parents=True)
    (older / "asset.json").write_text("{}", encoding="utf-8")
    ended = server.run("fetch", tmp_path)
    assert ended.code == 0, ended.said
    assert (older / "asset.json").is_file()


@pytest.fixture
def trained(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint(folder, {"model": "tiny"}, resume=False)
    return folder, written(folder, 9)


def test_a_checkpoint_of_another_transformers_is_refused_in_one_sentence_and_kept(trained):
    folder, path = trained
    (path / "trainer_state.json").write_text(
        json.dumps({"global_step": 9, "max_steps": 20, "tensors_seen": 1}), encoding="utf-8"
    )
    with pytest.raises(BadInput, match=r"another version of transformers .*'tensors_seen'.* starts anew") as raised:
        checkpoint(folder, {"model": "tiny"}, resume=True)
    assert "\n" not in str(raised.value)
    assert path.is_dir()


@pytest.mark.parametrize("state", ["[]", "7", "null", '"9"', '{"step": 9}'])
def test_a_state_in_another_form_is_a_checkpoint_that_is_not_whole(trained, state):
    folder, path = trained
    (path / "trainer_state.json").write_text(state, encoding="utf-8")
    assert checkpoint(folder, {"model": "tiny"}, resume=True) is None
    assert not path.exists()


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"dtype": "torch.float32", "format": 1}, "were made with model: None"),
        ({"model": "tiny", "dtype": "torch.load"}, "cannot be read"),
        ({"model": "tiny", "dtype": "float9"}, "cannot be read"),
        ({"model": "tiny", "dtype": ["torch.float32"]}, "cannot be read"),
        (["torch.float32"], "cannot be read"),
    ],
)
def test_features_of_another_version_are_refused_in_one_sentence_that_says_what_to_remove(tmp_path, index, said):
    (tmp_path / store.INDEX).write_text(json.dumps(index), encoding="utf-8")
    (tmp_path / store.VALUES).write_bytes(bytes(16))
    with pytest.raises(BadInput, match=f"{said}.*remove that folder") as raised:
        store.require_same(tmp_path, {"model": "tiny"}, 16)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
