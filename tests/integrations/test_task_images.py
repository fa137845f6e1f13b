"""Fetching pictures: every kind of reference, and nowhere else than allowed. The servers are real, on loopback."""

import base64
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from time import monotonic, sleep

import pytest

from backend.domain.records import Picture
from backend.errors import FetchRefusedError, ImageError
from backend.pictures import decode_picture
from integrations.label_studio.images import FetchLimits, LabelStudioSite, TaskImages, _is_public, _opened
from tests.sites import PNG, Site, running_site, sends


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    """A Label Studio and another server."""
    with ExitStack() as stack:
        yield stack.enter_context(running_site()), stack.enter_context(running_site())


def images(label_studio: Site, *hosts: str, path: str = "", limits: FetchLimits | None = None) -> TaskImages:
    site = LabelStudioSite(label_studio.url + path, lambda: "Token s3cret")
    return TaskImages(decode_picture, site, frozenset(hosts), limits or FetchLimits())


def size(picture: Picture) -> tuple[int, int]:
    return picture.width, picture.height


@pytest.mark.parametrize(
    "reference",
    [
        "/data/upload/1/3379b25e-tr%C3%A9.png",
        "/data/local-files/?d=imgs/b%20red%20car.png",
        "{url}/data/local-files/?d=imgs/b%20red%20car.png",
    ],
)
def test_label_studios_own_files_are_fetched_with_its_token(sites: tuple[Site, Site], reference: str) -> None:
    label_studio, _ = sites
    label_studio.answers |= {reference.removeprefix("{url}"): sends()}
    assert size(images(label_studio).fetch(reference.format(url=label_studio.url), 1)) == (8, 6)
    assert label_studio.credentials == ["Token s3cret"]


def test_a_label_studio_below_a_path_is_found_either_way(sites: tuple[Site, Site]) -> None:
    label_studio, _ = sites
    label_studio.answers["/ls/data/upload/1/a.png"] = sends()
    fetcher = images(label_studio, path="/ls")
    for reference in ("/data/upload/1/a.png", "/ls/data/upload/1/a.png"):
        assert size(fetcher.fetch(reference, 1)) == (8, 6)


def test_a_file_name_with_spaces_and_accents_is_encoded(sites: tuple[Site, Site]) -> None:
    label_studio, _ = sites
    label_studio.answers["/data/upload/1/a%20%C3%A9.png"] = sends()
    assert size(images(label_studio).fetch("/data/upload/1/a é.png", 1)) == (8, 6)


@pytest.mark.parametrize("presigned", [True, False])
def test_cloud_addresses_go_through_label_studio_whose_token_stays_there(
    sites: tuple[Site, Site], presigned: bool
) -> None:
    label_studio, storage = sites
    uri = "s3://bucket/dir/a b+é.png"
    path = "/tasks/49/presign/?fileuri=" + base64.urlsafe_b64encode(uri.encode()).decode().replace("=", "%3D")
    storage.answers["/signed?X-Amz-Signature=1"] = sends()
    redirect = sends(b"", 303, Location=f"{storage.url}/signed?X-Amz-Signature=1")
    label_studio.answers[path] = redirect if presigned else sends()
    picture = images(label_studio, storage.host).fetch(uri, 49)
    assert (size(picture), picture.source) == ((8, 6), uri)
    assert label_studio.credentials == ["Token s3cret"]
    assert storage.credentials == ([None] if presigned else [])


def test_a_listed_host_is_asked_without_credentials(sites: tuple[Site, Site]) -> None:
    label_studio, other = sites
    other.answers["/a.png"] = sends()
    assert size(images(label_studio, "127.0.0.1").fetch(f"{other.url}/a.png", 1)) == (8, 6)
    assert other.credentials == [None]


@pytest.mark.parametrize("path", ["/data/local-files/?d=a%20b.png", "/ls/data/upload/1/a.png"])
def test_own_files_under_another_address_of_label_studio_are_asked_for_at_the_configured_one(
    sites: tuple[Site, Site], path: str
) -> None:
    label_studio, public = sites
    public.answers[path] = sends(b"", 401)
    label_studio.answers[path.removeprefix("/ls")] = sends()
    assert size(images(label_studio, public.host).fetch(public.url + path, 1)) == (8, 6)
    assert (public.credentials, label_studio.credentials) == ([None], ["Token s3cret"])


def test_a_redirect_back_to_label_studio_is_followed(sites: tuple[Site, Site]) -> None:
    label_studio, _ = sites
    label_studio.answers |= {"/data/a.png": sends(b"", 302, Location="/data/b.png"), "/data/b.png": sends()}
    assert size(images(label_studio).fetch("/data/a.png", 1)) == (8, 6)


@pytest.mark.parametrize(
    "reference",
    [
        "http://127.0.0.1:9/a.png",
        "http://localhost:9/a.png",
        "http://2130706433:9/a.png",
        "http://0x7f.1:9/a.png",
        "http://[::1]:9/a.png",
        "http://[::ffff:127.0.0.1]:9/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://user:pw@127.0.0.1:9/a.png",
        "file:///etc/passwd",
        "/data/upload/../../etc/passwd",
        "/data/upload/%2e%2e/x",
        "/data/upload/%252e%252e%252fx",
        "/data/local-files/?d=../../etc/passwd",
        "/data/local-files/?d=a/../../b",
        "//127.0.0.1:9/a.png",
        "s3://bucket/../x",
        "etc/passwd",
        "C:\\secret.png",
        "ftp://example.org/a.png",
        "",
    ],
)
def test_what_leads_elsewhere_is_refused(sites: tuple[Site, Site], reference: str) -> None:
    label_studio, _ = sites
    with pytest.raises(FetchRefusedError) as refused:
        images(label_studio).fetch(reference, 1)
    assert "\n" not in str(refused.value)
    assert "pw@" not in str(refused.value)
    assert label_studio.paths == []


@pytest.mark.parametrize(
    "reference",
    [
        "http://me:s3cret@127.0.0.1:9/a.png?key=s3cret#key=s3cret",
        "http://me:half@s3cret@127.0.0.1:9/a.png",
        "http://127.0.0.1:9/a.png#key=s3cret",
        "s3://key:s3cret@bucket/a.png",
        "/data/local-files/?key=s3cret&d=a.png",
    ],
)
def test_no_error_tells_what_opens_an_address(reference: str) -> None:
    with pytest.raises(ImageError) as refused:
        TaskImages(decode_picture).fetch(reference, 1)
    assert "s3cret" not in str(refused.value)


def test_a_redirect_to_a_private_address_is_refused(sites: tuple[Site, Site]) -> None:
    label_studio, secret = sites
    label_studio.answers["/data/a.png"] = sends(b"", 302, Location=f"{secret.url}/admin")
    with pytest.raises(FetchRefusedError, match="private address"):
        images(label_studio).fetch("/data/a.png", 1)
    assert secret.paths == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://", "gopher://x/"])
def test_a_redirect_to_no_web_address_is_refused(sites: tuple[Site, Site], location: str) -> None:
    label_studio, _ = sites
    label_studio.answers["/data/a.png"] = sends(b"", 302, Location=location)
    with pytest.raises(FetchRefusedError):
        images(label_studio).fetch("/data/a.png", 1)


def test_endless_redirects_end(sites: tuple[Site, Site]) -> None:
    label_studio, _ = sites
    label_studio.answers["/data/a.png"] = sends(b"", 302, Location="/data/a.png")
    with pytest.raises(FetchRefusedError, match="more than 5 redirects"):
        images(label_studio).fetch("/data/a.png", 1)
    assert len(label_studio.paths) == 6


def trickles(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    trickle(handler)


def trickles_its_header(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.flush_headers()
    trickle(handler)


def trickles_a_chunk(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"5;")
    trickle(handler)


def trickle(handler: BaseHTTPRequestHandler) -> None:
    try:
        for _ in range(100):
            handler.wfile.write(b"x")
            sleep(0.02)
    except OSError:
        pass  # the reader has gone, as it should


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (sends(b"", 401), "Label Studio refuses .HTTP 401.: check GLIP_LABEL_LABEL_STUDIO_TOKEN"),
        (sends(b"", 404), "HTTP 404"),
        (sends(b"<html>"), "not an image"),
        (sends(b""), "empty"),
        (sends(PNG[:50]), "damaged"),
        (sends(PNG, **{"Content-Length": "999"}), "cannot be fetched"),
        (sends(b"x" * 5000), "larger than 4,000 bytes"),
        (lambda handler: handler.wfile.write(b"no header\r\n\r\n"), "cannot be fetched .BadStatusLine"),
        (trickles, "not there after 0.3 s"),
        (trickles_its_header, "not there after 0.3 s"),
        (trickles_a_chunk, "not there after 0.3 s"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    sites: tuple[Site, Site], answer: Callable[[BaseHTTPRequestHandler], None], said: str
) -> None:
    label_studio, _ = sites
    label_studio.answers["/data/a.png?sig=s3cret"] = answer
    fetcher = images(label_studio, limits=FetchLimits(max_bytes=4000, seconds=0.3))
    begun = monotonic()
    with pytest.raises(ImageError, match=said) as failed:
        fetcher.fetch("/data/a.png?sig=s3cret", 1)
    assert monotonic() - begun < 1.5
    assert str(failed.value).startswith("/data/a.png: ")
    assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize(("query", "said"), [("?v=1", True), ("?v=1&sig=s3cret", False)])
def test_where_a_signature_may_have_been_needed_that_is_said(sites: tuple[Site, Site], query: str, said: bool) -> None:
    label_studio, storage = sites
    storage.answers[f"/a.png{query}"] = sends(b"", 403)
    with pytest.raises(ImageError, match=r"cannot be fetched .*HTTP 403") as failed:
        images(label_studio, storage.host).fetch(f"{storage.url}/a.png{query}", 1)
    assert ("signatures are not kept" in str(failed.value)) is said


def test_a_host_that_is_away_is_an_image_error() -> None:
    site = LabelStudioSite("http://127.0.0.1:9", lambda: None)
    with pytest.raises(ImageError, match="cannot be fetched"):
        TaskImages(decode_picture, site).fetch("/data/a.png", 1)


def test_the_next_address_of_a_host_is_tried_where_one_does_not_answer(sites: tuple[Site, Site]) -> None:
    label_studio, _ = sites
    label_studio.answers["/a.png"] = sends()
    with _opened(f"{label_studio.url}/a.png", ["127.0.0.2", "127.0.0.1"], {}, monotonic() + 5) as response:
        assert response.status == 200


def test_without_label_studios_address_its_files_cannot_be_had() -> None:
    for reference in ("/data/upload/1/a.png", "s3://bucket/a.png"):
        with pytest.raises(ImageError, match="GLIP_LABEL_LABEL_STUDIO_URL"):
            TaskImages(decode_picture).fetch(reference, 1)


def test_data_uris_are_decoded_without_any_network() -> None:
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert size(TaskImages(decode_picture).fetch(uri)) == (8, 6)
    for broken in ("data:image/png,abc", "data:image/png;base64,%%%", "data:image/png;base64,é", "data:"):
        with pytest.raises(ImageError):
            TaskImages(decode_picture).fetch(broken)


def test_neither_token_nor_signed_address_is_logged(sites: tuple[Site, Site], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "glip_label")
    label_studio, _ = sites
    label_studio.answers["/data/a.png?sig=s1gned"] = sends()
    images(label_studio).fetch("/data/a.png?sig=s1gned", 1)
    assert "s1gned" not in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_private_addresses_are_known_in_every_notation(address: str, public: bool) -> None:
    assert _is_public(address) is public
