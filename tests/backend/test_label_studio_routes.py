"""The routes, through Flask's test client, on fakes and recorded requests."""

import base64
import logging
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.bootstrap import Backend
from backend.domain.geometry import Box
from backend.domain.records import Look, Picture, Proposal, Query
from backend.errors import ImageError, ModelError, StorageError
from backend.model_folders import DEMO_REMARK
from backend.pictures import decode_picture
from backend.services.predict import PredictLimits
from backend.web.app import MAX_BODY, create_app
from tests.fakes import FakeDatabase, FakeDetector, FakeImages
from tests.make import CONFIG, image_bytes, make_backend, make_body, recorded, recordings

TEXT = {"from_name": "prompt", "to_name": "image", "type": "textarea"}


def client(backend: Backend | None = None) -> FlaskClient:
    return create_app(backend or make_backend()).test_client()


def results_of(body: dict[str, Any], backend: Backend | None = None) -> list[dict[str, Any]]:
    response = client(backend).post("/predict", json=body)
    assert response.status_code == 200, response.json
    results: list[dict[str, Any]] = response.get_json()["results"]
    return results


@pytest.mark.parametrize("name", recordings("/predict"))
def test_every_recorded_predict_request_is_answered_as_the_labelling_config_allows(name: str) -> None:
    body = recorded(name)["json"]
    interface = LabelInterface(body["label_config"])
    results = results_of(body)
    assert len(results) == len(body["tasks"])
    for task, result in zip(body["tasks"], results, strict=True):
        assert interface.validate_prediction(result, return_errors=True) == []
        assert result["model_version"] == "fake-0123abcd"
        assert 0 <= result["score"] <= 1
        for region in result["result"]:
            assert region["value"]["rectanglelabels"][0] in interface.get_control(region["from_name"]).labels
            assert region["meta"]["glip"]["version"] == "fake-0123abcd"
            assert region["id"].startswith(region["meta"]["glip"]["prediction"])
        assert isinstance(task["id"], int)
    ids = [region["id"] for result in results for region in result["result"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", recordings("/setup"))
def test_every_recorded_setup_request_is_answered_without_asking_the_model(name: str) -> None:
    detector = FakeDetector()
    response = client(make_backend(detector)).post("/setup", json=recorded(name)["json"])
    assert (response.status_code, response.get_json()) == (200, {"model_version": "fake-0123abcd"})
    assert detector.asked == []


@pytest.mark.parametrize("path", ["/health", "/versions"])
def test_recorded_get_requests_are_answered(path: str) -> None:
    for name in recordings(path):
        response = client().get(recorded(name)["path"])
        assert response.status_code == 200
        assert "fake-0123abcd" in response.get_data(as_text=True)


def test_health_answers_in_any_state_and_setup_says_why_there_is_no_model() -> None:
    class Missing(FakeDetector):
        @property
        def version(self) -> str:
            raise ModelError("/models/x: holds no model")

        @version.setter
        def version(self, value: str) -> None:
            pass

    service = client(make_backend(Missing()))
    health = service.get("/health")
    assert (health.status_code, health.get_json()["model"]["error"]) == (200, "/models/x: holds no model")
    assert service.post("/setup", json={"project": "1.2"}).status == "503 /models/x: holds no model"


def test_health_says_that_the_bundled_model_is_demo_grade() -> None:
    backend = replace(make_backend(), model_remark=DEMO_REMARK)
    remark = client(backend).get("/health").get_json()["model"]["remark"]
    assert "demo-grade" in remark
    assert "GLIP_LABEL_MODEL=glip-t" in remark


@pytest.mark.parametrize("schema", ["", "<View/>", "no xml", None])
def test_setup_takes_any_labelling_config(schema: str | None) -> None:
    response = client().post("/setup", json={"project": "1.2", "schema": schema, "extra_params": None})
    assert response.status_code == 200


def test_a_threshold_given_when_connecting_holds_for_its_project_only() -> None:
    database = FakeDatabase()
    service = client(make_backend(database=database))
    service.post("/setup", json={"project": "7.1795423412", "extra_params": {"threshold": 0.8}})
    mine = service.post("/predict", json=make_body("/data/a.png")).get_json()["results"][0]["result"]
    other = service.post("/predict", json=make_body("/data/a.png") | {"project": "8.1"}).get_json()["results"][0]
    assert [region["value"]["rectanglelabels"] for region in mine] == [["cat"]]
    assert len(other["result"]) == 2
    service.post("/setup", json={"project": "7.1795423412", "extra_params": None})
    assert len(service.post("/predict", json=make_body("/data/a.png")).get_json()["results"][0]["result"]) == 2


@pytest.mark.parametrize("threshold", ["high", 2, True, float("nan"), 10**400])
def test_setup_refuses_a_threshold_that_is_none(threshold: object) -> None:
    response = client().post("/setup", json={"project": "1.2", "extra_params": {"threshold": threshold}})
    assert response.status_code == 400
    assert "from 0 to 1" in response.get_json()["error"]


def test_setup_refuses_extra_params_that_are_nested_too_deeply() -> None:
    response = client().post("/setup", json={"project": "1.2", "extra_params": "[" * 5000})
    assert response.status_code == 400
    assert "'extra_params' must be" in response.get_json()["error"]


def test_regions_are_in_percent_of_the_upright_image() -> None:
    upright = decode_picture(image_bytes(80, 40, "JPEG", orientation=6), "photo.jpg")
    lower_half = FakeDetector(lambda picture, query: [Proposal(Box(0, 40, 20, 80), "cat", 0.5, "cat")])
    images = FakeImages({"/data/photo.jpg": upright})
    region = results_of(make_body("/data/photo.jpg"), make_backend(lower_half, images))[0]["result"][0]
    assert (region["original_width"], region["original_height"]) == (40, 80)
    value = region["value"]
    assert (value["x"], value["y"], value["width"], value["height"]) == pytest.approx((0, 50, 50, 50))


def test_a_task_whose_image_cannot_be_had_fails_alone_and_visibly(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    images = FakeImages({"/data/gone.png": ImageError("/data/gone.png: cannot be fetched (HTTP 404)")})
    service = client(make_backend(images=images))
    results = service.post("/predict", json=make_body("/data/a.png", "/data/gone.png", "/data/b.png")).get_json()
    first, gone, last = results["results"]
    assert first["result"]
    assert last["result"]
    assert gone == {"task": 2, "error": "/data/gone.png: cannot be fetched (HTTP 404)"}
    assert "task=2 failed: /data/gone.png: cannot be fetched (HTTP 404)" in caplog.text
    assert service.get("/health").get_json()["failed_tasks"] == [{"project": 7, **gone}]


def test_a_task_without_image_fails_alone() -> None:
    results = results_of(make_body("/data/a.png", None, 7, " "))
    assert ["result" in result for result in results] == [True, False, False, False]


def test_when_no_task_can_be_looked_at_the_status_line_says_why() -> None:
    response = client(make_backend(images=FakeImages(default=None))).post("/predict", json=make_body("/data/é.png"))
    assert response.status == "422 /data/?.png: not there"
    assert response.get_json()["error"] == "/data/é.png: not there"
    assert response.get_json()["request_id"] == response.headers["X-Request-ID"]


def test_asking_twice_gives_the_same_ids_and_looks_once() -> None:
    detector = FakeDetector()
    service = client(make_backend(detector))
    first, second = (service.post("/predict", json=make_body("/data/a.png")).get_json() for _ in range(2))
    assert first == second
    assert len(detector.asked) == 1


def test_the_task_score_is_the_mean_and_zero_where_nothing_was_found() -> None:
    def finds(picture: Picture, query: Query) -> list[Proposal]:
        scores = [] if "empty" in picture.source else [0.8, 0.5]
        return [Proposal(Box(1, 1, 9, 9), "cat", score, "cat") for score in scores]

    found, empty = results_of(make_body("/data/a.png", "/data/empty.png"), make_backend(FakeDetector(finds)))
    assert found["score"] == pytest.approx(0.65)
    assert (empty["result"], empty["score"]) == ([], 0.0)


def test_two_images_of_one_task_are_answered_under_their_own_names() -> None:
    config = """<View><Image name="front" value="$front"/><Image name="back" value="$back"/>
      <RectangleLabels name="parts" toName="front"><Label value="wheel"/></RectangleLabels>
      <RectangleLabels name="lamps" toName="back"><Label value="lamp"/></RectangleLabels></View>"""
    body = make_body("unused", config=config)
    body["tasks"][0]["data"] = {"front": "/data/f.png", "back": "/data/b.png"}
    (result,) = results_of(body)
    named = {(each["to_name"], each["from_name"], each["value"]["rectanglelabels"][0]) for each in result["result"]}
    assert named == {("front", "parts", "wheel"), ("back", "lamps", "lamp")}
    assert LabelInterface(config).validate_prediction(result, return_errors=True) == []


def test_a_typed_name_is_searched_for_and_answered_with_its_label() -> None:
    config = CONFIG.replace("</View>", '<TextArea name="prompt" toName="image"/></View>')
    context = [{**TEXT, "value": {"text": ["dog: brown puppy"]}}]
    (result,) = results_of(make_body("/data/a.png", config=config, context=context))
    assert [region["value"]["rectanglelabels"] for region in result["result"]] == [["dog"]]
    assert result["result"][0]["meta"]["glip"]["prompt"] == "brown puppy"


def test_what_was_looked_at_is_kept_with_each_prediction() -> None:
    database = FakeDatabase()
    service = client(make_backend(database=database))
    config = CONFIG.replace("</View>", '<TextArea name="prompt" toName="image"/></View>')
    context = [{**TEXT, "value": {"text": ["cat, dog"]}}]
    for each in (None, context):
        service.post("/predict", json=make_body(" https://me:pw@h/a.png?sig=s", config=config, context=each))
    looks = [each.look for each in database.tables.predictions.values()]
    assert looks == [Look("image", "https://h/a.png", "0" * 64, prompted) for prompted in (False, True)]


def test_a_prompt_for_the_labels_themselves_is_a_prediction_of_its_own() -> None:
    drawn = {"type": "keypointlabels", "to_name": "image", "value": {"x": 50, "y": 50}}
    batch, prompted = (
        {region["id"] for result in results_of(make_body("/a.png", context=each)) for region in result["result"]}
        for each in (None, [drawn])
    )
    assert prompted
    assert batch.isdisjoint(prompted)


def test_an_empty_typed_prompt_is_refused() -> None:
    config = CONFIG.replace("</View>", '<TextArea name="prompt" toName="image"/></View>')
    context = [{**TEXT, "value": {"text": [" . "]}}]
    response = client().post("/predict", json=make_body("/data/a.png", config=config, context=context))
    assert response.status_code == 400
    assert "the prompt is empty" in response.status


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"tasks": ["\\ud800"]}', "no JSON"),
        (b"[]", "the body"),
        (b"{}", "'tasks'"),
        (b'{"tasks": [1], "label_config": "", "project": "1.2"}', "task number 1"),
        (b'{"tasks": [{"id": "1"}], "label_config": "", "project": "1.2"}', "task number 1"),
        (b'{"tasks": [], "project": "1.2"}', "'label_config'"),
        (b'{"tasks": [], "label_config": "", "project": "../7"}', "'project'"),
        (b'{"tasks": [], "label_config": "", "project": "1.2", "params": []}', "config is empty"),
        (b'{"tasks": [], "label_config": "", "project": "1.2", "params": {"context": 3}}', "'params.context'"),
    ],
)
def test_a_malformed_body_is_refused_by_name(body: bytes, said: str) -> None:
    response = client().post("/predict", data=body, content_type="application/json")
    assert response.status_code in (400, 422)
    assert said in response.get_json()["error"]
    assert response.get_json()["request_id"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
def test_what_a_page_in_a_browser_may_send_without_leave_is_refused(path: str, content_type: str | None) -> None:
    response = client().post(path, data=b'{"action": "PROJECT_UPDATED"}', content_type=content_type)
    assert (response.status_code, "application/json" in response.get_json()["error"]) == (400, True)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/x", 404), ("GET", "/predict", 405)])
def test_unknown_routes_and_methods_are_refused_in_json(method: str, path: str, status: int) -> None:
    response = client().open(path, method=method)
    assert response.status_code == status
    assert response.get_json()["request_id"]


def test_a_body_beyond_the_limit_is_refused() -> None:
    response = client().post("/predict", data=b" " * (MAX_BODY + 1), content_type="application/json")
    assert response.status_code == 413


def test_a_defect_is_answered_without_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def breaks(picture: Picture, query: Query) -> list[Proposal]:
        raise ZeroDivisionError("secret detail")

    response = client(make_backend(FakeDetector(breaks))).post("/predict", json=make_body("/data/a.png"))
    assert response.status_code == 500
    assert "secret" not in response.get_data(as_text=True)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("error", "status"), [(ModelError("weights gone"), 503), (StorageError("read-only"), 503)])
def test_a_failing_model_or_database_is_no_empty_answer(error: ModelError | StorageError, status: int) -> None:
    response = client(make_backend(FakeDetector(error=error))).post("/predict", json=make_body("/a.png", "/b.png"))
    assert response.status == f"{status} {error}"


def test_damaged_weights_are_told_from_scores_that_are_no_numbers() -> None:
    detector = FakeDetector(lambda picture, query: [Proposal(Box(0, 0, 1, 1), "cat", float("nan"), "cat")])
    response = client(make_backend(detector)).post("/predict", json=make_body("/data/a.png"))
    assert response.status_code == 503
    assert "damaged" in response.get_json()["error"]


def test_work_beyond_the_time_is_dropped_and_asking_again_goes_on() -> None:
    service = client(make_backend(limits=PredictLimits(seconds=0.0, batch_size=1)))
    for finished in (1, 2, 3):
        results = service.post("/predict", json=make_body("/1.png", "/2.png", "/3.png")).get_json()["results"]
        assert ["result" in result for result in results] == [number < finished for number in range(3)]


def test_basic_auth_guards_every_route() -> None:
    service = client(make_backend(basic_auth=("glip", "pä:ss")))
    good = "Basic " + base64.b64encode("glip:pä:ss".encode()).decode()
    for header in ("", "Bearer x", "Basic !!", "Basic é", "Basic " + base64.b64encode(b"glip:wrong").decode()):
        response = service.get("/health", headers={"Authorization": header})
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert service.get("/health", headers={"Authorization": good}).status_code == 200
    assert service.post("/predict", json=make_body("/a.png")).status_code == 401


def test_no_token_or_body_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service = client()
    setup = recorded("connect_setup")["json"] | {"access_token": "s3cret-token"}
    service.post("/setup", json=setup)
    service.post("/webhook", json={"action": "PROJECT_UPDATED", "project": {"token": "s3cret-token"}})
    service.post("/predict", json=make_body("/a.png") | {"params": {"password": "s3cret-token", "context": None}})
    service.post("/predict?key=s3cret-token", data=b"s3cret-token", content_type="application/json")
    assert "s3cret-token" not in caplog.text
    assert "traffic light" not in caplog.text
    assert "project=7 tasks=1 failed=0 regions=2 version=fake-0123abcd" in caplog.text


def test_what_a_message_names_does_not_make_it_long(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "glip_label")
    config = CONFIG.replace('"image"', '"' + "i" * 9000 + '"').replace("$image", "x.png")
    response = client().post("/predict", json=make_body("/a.png", config=config))
    assert (response.status_code, len(response.get_json()["error"])) == (422, 500)
    assert len(caplog.text) < 1000


def test_a_request_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "glip_label")
    client().get("/a%0Ab")
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()
