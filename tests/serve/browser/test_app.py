from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from vitrail.serve.browser.app import MAX_POSTS, MAX_RESULT_BYTES


def rows(device):
    return device.get("/api/board").json()["rows"]


# ---- the page and its headers


@pytest.mark.parametrize(
    "path", ["/", "/page/page.js", "/ort/1.30.0/ort.wasm.bundle.min.mjs", "/api/board", "/nothing", "/api/join"]
)
def test_every_answer_isolates_the_page(client, path):
    headers = client.get(path).headers
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "http:" not in policy


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    texts = [page.text] + [client.get(f"/page/{n}").text for n in ("page.js", "board.js", "worker.js", "style.css")]
    addresses = "".join(texts).replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert "http://" not in addresses
    assert "https://" not in addresses
    assert "@import" not in addresses


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/page/worker.js", "text/javascript"),
        ("/page/style.css", "text/css"),
        ("/ort/1.30.0/ort.wasm.bundle.min.mjs", "text/javascript"),
        ("/ort/1.30.0/ort-wasm-simd-threaded.wasm", "application/wasm"),
        ("/ort/1.30.0/ThirdPartyNotices.txt", "text/plain"),
    ],
)
def test_files_have_the_types_that_browsers_insist_on(client, path, kind):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == kind


@pytest.mark.parametrize(
    "path",
    ["/page/..%2Fapp.py", "/page/nothing.js", "/ort/1.30.0/..%2F..%2Fapp.py", "/ort/1.29.0/LICENSE", "/page/%00"],
)
def test_no_other_file_is_served(client, path):
    assert client.get(path).status_code == 404


# ---- joining


def test_an_invitation_works_once(client, bench, make_device):
    used = bench.access.invitation
    first = make_device()
    assert bench.access.invitation != used
    other = type(first)(client, 77)
    answer = other.join(used)
    assert answer.status_code == 401
    assert "scan the code" in answer.json()["error"]
    assert first.get("/api/state").status_code == 200


@pytest.mark.parametrize("token", ["", "x", "a" * 24, "é"])
def test_a_wrong_session_sees_and_stores_nothing(client, offers, device, token):
    stranger = type(device)(client, 9)
    stranger.token = token
    model = offers[0].id
    for path in ("/api/state", "/api/board", f"/api/models/{model}/file", f"/api/models/{model}/answer"):
        assert stranger.get(path).status_code == 401
    assert stranger.send(stranger.measurement(model)).status_code == 401
    assert rows(device) == []


def test_guessing_is_slowed_down_and_hinders_nobody_else(client, bench, device, offers, clock):
    stranger = type(device)(client, 9)
    answers = [stranger.join("wrong").status_code for _ in range(100)]
    assert answers[:30] == [401] * 30
    assert set(answers[30:]) == {429}
    assert device.send(device.measurement(offers[0].id)).status_code == 201
    assert stranger.join(bench.access.invitation).status_code == 200
    clock.now += 2
    assert type(device)(client, 10).join("wrong").status_code == 401


def test_no_more_devices_than_allowed(client, bench, make_device):
    devices = [make_device() for _ in range(4)]
    answer = type(devices[0])(client, 50).join(bench.access.invitation)
    assert answer.status_code == 403
    assert "--max-devices" in answer.json()["error"]
    assert all(one.get("/api/state").status_code == 200 for one in devices)


def test_a_device_is_told_what_to_measure(device, offers):
    state = device.get("/api/state").json()
    assert state["device"] == "Phone 1"
    assert state["plan"]["threads"] == [1, 4]
    assert {one["id"]: one["label"] for one in state["models"]} == {one.id: one.label for one in offers}
    for offer in offers:
        assert device.get(f"/api/models/{offer.id}/file").content == offer.path.read_bytes()
        images = np.frombuffer(device.get(f"/api/models/{offer.id}/images").content, "<f4")
        assert images.shape == (3 * 8 * 8,)
        assert np.frombuffer(device.get(f"/api/models/{offer.id}/answer").content, "<f4").shape == (4,)


def test_a_file_that_was_replaced_is_not_measured_as_the_old_one(device, offers):
    offers[0].path.write_bytes(offers[1].path.read_bytes() + b"\0")
    answer = device.get(f"/api/models/{offers[0].id}/file")
    assert answer.status_code == 410
    assert "start vitrail bench again" in answer.json()["error"]
    assert device.get(f"/api/models/{offers[1].id}/file").status_code == 200


def test_names_are_different(make_device, offers):
    first, second = make_device(name="Pixel"), make_device(name="Pixel")
    for one in (first, second):
        one.send(one.measurement(offers[0].id))
    assert [row["device"] for row in rows(first)] == ["Pixel", "Pixel (2)"]
    renamed = second.post("/api/device", json.dumps(second.description | {"name": "Tablet"}).encode())
    assert renamed.json()["device"] == "Tablet"
    assert [row["device"] for row in rows(first)] == ["Pixel", "Tablet"]
    assert second.post("/api/device", json.dumps(first.description).encode()).status_code == 403


# ---- results


def test_a_result_is_stored_once(device, offers, witness):
    result = device.measurement(offers[0].id)
    assert [device.send(result).status_code for _ in range(3)] == [201, 200, 200]
    assert device.send(result | {"samples_ms": [9.0]}).json() == {"stored": False}
    (row,) = rows(device)
    assert row["latency_ms_median"] == 2.25
    assert [event for event, _ in witness.seen] == ["joined", "measured"]


def test_two_devices_at_the_same_time(make_device, offers):
    first, second = make_device(), make_device()
    same = first.measurement(offers[0].id)
    assert first.send(same).status_code == 201
    assert second.send(same | {"samples_ms": [7.0]}).status_code == 201  # an id is the device's own
    found = {row["device"]: row["latency_ms_median"] for row in rows(first)}
    assert found == {"Phone 1": 2.25, "Phone 2": 7.0} == {r["device"]: r["latency_ms_median"] for r in rows(second)}


def test_the_board_has_a_front_for_every_device(make_device, offers):
    first, second = make_device(), make_device()
    float_, int8, other_float, other_int8 = offers  # top-1 0.91, 0.88, twice
    for device, model, milliseconds in [
        (first, float_, 4.0), (first, int8, 5.0), (first, other_int8, 2.0),
        (second, float_, 40.0), (second, other_float, 80.0),
    ]:  # fmt: skip
        device.send(device.measurement(model.id, samples_ms=[milliseconds]))
    front = {(row["device"], row["model"]) for row in rows(first) if row["on_front"]}
    assert front == {("Phone 1", "first float"), ("Phone 1", "second int8"), ("Phone 2", "first float")}


def test_the_newest_measurement_of_a_mode_counts(device, offers):
    model = offers[0].id
    for milliseconds in (8.0, 4.0):
        device.send(device.measurement(model, samples_ms=[milliseconds]))
    device.send(device.measurement(model, samples_ms=[3.0], threads=4))
    device.send(device.measurement(model, samples_ms=[1.0], backend="webgpu"))
    assert [(row["mode"], row["latency_ms_median"]) for row in rows(device)] == [
        ("1 thread", 4.0), ("4 threads", 3.0), ("WebGPU", 1.0)
    ]  # fmt: skip


def test_a_wrong_answer_is_no_fast_model(device, offers):
    device.send(device.measurement(offers[0].id, max_relative_error=0.01))
    device.send(device.measurement(offers[1].id, max_relative_error=0.01))  # int8 may be that far off
    wrong, right = rows(device)
    assert "differs from ONNX Runtime's by 0.01" in wrong["failure"]
    assert wrong["latency_ms_median"] is None
    assert not wrong["on_front"]
    assert right["failure"] is None


def test_what_disturbed_a_measurement_is_marked(device, offers):
    steady, slower = [2.0] * 16, [2.0] * 12 + [2.3] * 4
    for offer, values in zip(offers, [{}, {"hidden": True}, {"samples_ms": slower}], strict=False):
        device.send(device.measurement(offer.id, **({"samples_ms": steady} | values)))
    assert [row["contended"] for row in rows(device)] == [False, True, True]


def test_a_failure_is_a_row(device, offers):
    failure = {"id": "0" * 32, "model": offers[0].id, "backend": "wasm", "threads": 1, "failure": "out of memory"}
    assert device.send(failure).status_code == 201
    assert [row["failure"] for row in rows(device)] == ["out of memory"]


def test_nothing_new_is_not_sent_again(device, offers):
    device.send(device.measurement(offers[0].id))
    revision = device.get("/api/board").json()["revision"]
    assert device.get(f"/api/board?since={revision}").status_code == 204
    device.send(device.measurement(offers[1].id))
    assert len(device.get(f"/api/board?since={revision}").json()["rows"]) == 2


def test_the_end_is_told_once(device, witness):
    assert [device.post("/api/done", b"{}").status_code for _ in range(2)] == [204, 204]
    assert [event for event, _ in witness.seen] == ["joined", "done"]


# ---- garbage


def garbage(device, model):
    """A thousand bodies: noise, JSON of the wrong kind, and results that are wrong in one place."""
    draw = random.Random(0)
    good = device.measurement(model)
    wrong = [
        ("id", "x"), ("id", 3), ("id", "A" * 32), ("model", "../../etc"), ("model", "0" * 17), ("backend", "cpu"),
        ("threads", 0), ("threads", "1"), ("threads", 1e300), ("threads", 10**400), ("samples_ms", [-1.0]),
        ("samples_ms", []), ("samples_ms", [1e9]), ("samples_ms", [1.0] * 5001), ("samples_ms", {"a": 1}),
        ("samples_ms", [None]), ("runs_per_sample", 0), ("load_ms", None), ("load_ms", "soon"), ("hidden", 1),
        ("max_relative_error", -1), ("max_relative_error", None), ("failure", ""), ("failure", "a\x1b[2Jb"),
        ("failure", "x" * 301), ("extra", 1), ("__proto__", {}),
    ]  # fmt: skip
    bodies = [json.dumps(good | {key: value}).encode() for key, value in wrong]
    bodies += [
        b"", b"{}", b"[]", b"null", b"0", b'"', b"{", b"\xff\xfe", b"\0" * 100, b"[" * 50_000, b'{"a":' * 20_000,
        b"NaN", json.dumps(good | {"load_ms": float("nan")}).encode(), json.dumps([good] * 3).encode(),
        json.dumps(good | {"load_ms": float("inf")}).encode(), b"1" * MAX_RESULT_BYTES, b"1" * (MAX_RESULT_BYTES + 1),
        json.dumps(good).encode()[:-1], b'{"id": "\\ud800"}', json.dumps(good | {"model": "f" * 16}).encode(),
    ]  # fmt: skip
    text = json.dumps(good).encode()
    while len(bodies) < 1000:
        if len(bodies) % 2:
            bodies.append(draw.randbytes(draw.randrange(1, 300)))
        else:  # a result with a byte that JSON has no use for
            place = draw.randrange(len(text))
            bodies.append(text[:place] + b"\x01" + text[place:])
    return bodies


def test_a_thousand_garbage_bodies_lose_nothing_and_crash_nothing(make_device, offers, clock, store):
    device, other = make_device(), make_device()
    kept = device.measurement(offers[0].id)
    assert device.send(kept).status_code == 201
    before = rows(other)
    statuses = set()
    for number, body in enumerate(garbage(device, offers[0].id)):
        clock.now += 0.1  # slowly enough for none to be refused for its rate alone
        answer = device.post("/api/results", body)
        statuses.add(answer.status_code)
        assert answer.status_code in (404, 413, 422), (number, body[:200], answer.text)
        assert len(answer.content) < 400
        if number % 100 == 0:
            assert rows(other) == before
    assert statuses == {404, 413, 422}
    assert device.send(kept).json() == {"stored": False}
    assert device.send(device.measurement(offers[1].id)).status_code == 201
    assert len(rows(other)) == 2
    assert sqlite3.connect(store.path).execute("SELECT count(*) FROM measurement").fetchone() == (2,)


@pytest.mark.parametrize("path", ["/api/join", "/api/device"])
def test_garbage_joins_nothing(client, device, bench, clock, path):
    invitation = bench.access.invitation
    message = {"invitation": invitation, "device": device.description} if path == "/api/join" else device.description
    text = json.dumps(message)
    for old, new in [
        ("Phone 1", "a\\u001b[31m"), ("Phone 1", "x" * 61), ("Phone 1", " "), ('"cores": 8', '"cores": 0'),
        ('"simd": true', '"simd": 1'), ("{", ""), ("}", ""), (text, "[]"), (text, " " * 5000),
    ]:  # fmt: skip
        assert old in text
        clock.now += 1
        assert device.post(path, text.replace(old, new).encode()).status_code in (413, 422)
    assert bench.access.invitation == invitation
    assert device.get("/api/state").json()["device"] == "Phone 1"


def test_a_flood_is_slowed_down_and_others_are_not(make_device, offers):
    flood, calm = make_device(), make_device()
    answers = [flood.post("/api/results", b"x") for _ in range(300)]
    assert {answer.status_code for answer in answers[-50:]} == {429}
    assert answers[-1].headers["Retry-After"] == "2"
    assert calm.send(calm.measurement(offers[0].id)).status_code == 201


def test_one_device_cannot_fill_the_disk(device, bench, offers):
    bench.access.session(device.token).num_posts = MAX_POSTS - 1
    assert device.send(device.measurement(offers[0].id)).status_code == 201
    assert device.send(device.measurement(offers[0].id)).status_code == 403
    assert len(rows(device)) == 1


def test_a_database_that_refuses_is_told_and_the_device_keeps_its_result(device, store, offers, witness):
    result = device.measurement(offers[0].id)
    store._db.execute("PRAGMA query_only = ON")  # as a full disk would
    answer = device.send(result)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert witness.seen[-1][0] == "trouble"
    store._db.execute("PRAGMA query_only = OFF")
    assert device.send(result).status_code == 201


def test_a_device_that_meets_a_locked_database_joins_with_the_same_link_later(device, bench, store, witness):
    invitation = bench.access.invitation

    def join(invitation: str, number: int) -> int:
        message = {"invitation": invitation, "device": device.description | {"id": f"{number:032x}"}}
        return device.client.post("/api/join", json=message).status_code

    store._db.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert join(invitation, 2) == 503
        assert witness.seen[-1][0] == "trouble"
    assert join(invitation, 2) == 200
    assert witness.seen[-1][0] == "joined"
    assert join(invitation, 3) == 401
    assert join(bench.access.invitation, 3) == 200
