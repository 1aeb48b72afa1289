"""What breaks at huggingface_hub's next release."""

import json

import httpx2
import pytest
from huggingface_hub import _tree_cache, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import _http

from ftlab.internals import huggingface_hub as hub_internals

ADDRESS = "http://127.0.0.1/api"


def test_the_names_that_bound_requests_needs_are_there():
    for name in ("_GLOBAL_CLIENT_FACTORY", "parse_ratelimit_headers", "_parse_retry_after", "hf_raise_for_status"):
        assert hasattr(_http, name), (
            f"huggingface_hub no longer has utils._http.{name}: ftlab.internals.huggingface_hub.bound_requests needs "
            "another way to limit the time of a download"
        )
    assert hasattr(_tree_cache, "read_tree_cache"), (
        "huggingface_hub no longer has _tree_cache.read_tree_cache: ftlab.internals.huggingface_hub.listed_hashes "
        "needs another way to the SHA-256 of a file"
    )


def client(answer) -> httpx2.Client:
    return hub_internals.BoundedClient(
        lambda: httpx2.Client(transport=httpx2.MockTransport(answer), event_hooks={}, timeout=None)
    )()


@pytest.mark.parametrize("given", [None, 60])
def test_a_download_waits_no_longer_than_the_user_said_and_an_upload_as_long_as_it_takes(monkeypatch, given):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 7)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 5)
    seen = {}

    def answer(request):
        seen[request.method] = request.extensions["timeout"]["read"]
        return httpx2.Response(200)

    for method in ("GET", "HEAD", "POST"):
        client(answer).request(method, ADDRESS, timeout=given)
    assert seen == {"GET": 7, "HEAD": 7, "POST": given}
    client(answer).request("GET", ADDRESS, timeout=2)
    assert seen["GET"] == 2


def test_the_description_of_a_file_is_waited_for_as_long_as_the_user_said(monkeypatch):
    """By either setting: HF_HUB_ETAG_TIMEOUT is made for slow networks."""
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 50)
    seen = {}

    def answer(request):
        seen[request.method] = request.extensions["timeout"]["read"]
        return httpx2.Response(200)

    for method in ("GET", "HEAD"):
        client(answer).request(method, ADDRESS, timeout=60)
    assert seen == {"GET": constants.HF_HUB_DOWNLOAD_TIMEOUT, "HEAD": 50}


@pytest.mark.parametrize(
    ("status", "headers", "refused"),
    [
        (429, {"Retry-After": "61"}, True),
        (503, {"Retry-After": "3600"}, True),
        (429, {"ratelimit": '"api";r=0;t=300'}, True),
        (429, {"ratelimit": '"api";r=5;t=300'}, False),
        (429, {"Retry-After": "5"}, False),
        (429, {}, False),
        (200, {"Retry-After": "3600"}, False),
    ],
)
def test_a_hub_that_asks_for_a_long_wait_is_not_waited_for(status, headers, refused):
    asking = client(lambda request: httpx2.Response(status, headers=headers))
    if refused:
        with pytest.raises(HfHubHTTPError) as raised:
            asking.get(ADDRESS)
        assert raised.value.response.status_code == status
    else:
        assert asking.get(ADDRESS).status_code == status


def test_the_factory_of_a_user_is_kept_and_bounded_once(monkeypatch):
    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", lambda: httpx2.Client(headers={"X-Mine": "yes"}))
    hub_internals.bound_requests()
    first = _http._GLOBAL_CLIENT_FACTORY
    hub_internals.bound_requests()
    assert _http._GLOBAL_CLIENT_FACTORY is first
    assert first().headers["X-Mine"] == "yes"
    _http.close_session()


def test_the_hashes_of_a_listing_are_those_that_the_hub_gave(tmp_path):
    entries = {
        "model.safetensors": _tree_cache.TreeCacheEntry(
            size=3, blob_id="b" * 40, lfs_sha256="c" * 64, lfs_size=3, xet_hash=None
        ),
        "config.json": _tree_cache.TreeCacheEntry(
            size=2, blob_id="d" * 40, lfs_sha256=None, lfs_size=None, xet_hash=None
        ),
    }
    _tree_cache.write_tree_cache(str(tmp_path), "a" * 40, entries)
    assert json.loads(next((tmp_path / "trees").iterdir()).read_text(encoding="utf-8"))["files"]
    assert hub_internals.listed_hashes(tmp_path, "a" * 40) == {
        "model.safetensors": ("c" * 64, "b" * 40),
        "config.json": (None, "d" * 40),
    }
    assert hub_internals.listed_hashes(tmp_path, "e" * 40) == {}
