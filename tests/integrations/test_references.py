"""References to pictures, without the credentials in them."""

import pytest

from integrations.label_studio.references import image_references, kept_reference


@pytest.mark.parametrize(
    "reference",
    [
        "/data/upload/1/3379b25e-tr%C3%A9.png",
        "/data/local-files/?d=imgs/c.jpg",
        "http://label-studio/data/local-files/?d=imgs/c.jpg",
        "s3://bucket/a key#1@2x.png",
        "https://example.org/picture?id=5&size=large",
        "https://example.org/get?key=photos/1.jpg",
        "https://example.org/get?sz=300&sp=2&st=1&policy=12&expires=never",
        "https://example.org/get?author=me&design=9&sessions=2&monkey=1&tokenizer=a&assign=b",
        "https://example.org/get?flag&empty=&id=%26token",
        "https://example.org/get?",
    ],
)
def test_an_address_without_credentials_stays(reference: str) -> None:
    assert kept_reference(reference) == reference


@pytest.mark.parametrize(
    ("reference", "kept"),
    [
        ("https://b.s3.amazonaws.com/a.png?X-Amz-Signature=s&X-Amz-Date=1", "https://b.s3.amazonaws.com/a.png"),
        ("https://storage.googleapis.com/b/a.png?GoogleAccessId=a&Expires=1", "https://storage.googleapis.com/b/a.png"),
        ("https://x.blob.core.windows.net/c/a.png?sv=1&sig=s", "https://x.blob.core.windows.net/c/a.png"),
        ("https://cdn.example.org/a.png?sz=1&access_token=s", "https://cdn.example.org/a.png?sz=1"),
        ("https://example.org/get?key=photos%2F1.jpg&Token=s&v=1", "https://example.org/get?key=photos%2F1.jpg&v=1"),
        (
            "https://x.blob.core.windows.net/a.png?sv=1&ss=b&srt=o&sp=r&se=2&st=1&spr=https&sr=b&sig=s&snapshot=3",
            "https://x.blob.core.windows.net/a.png?snapshot=3",
        ),
        (
            "https://d.cloudfront.net/a.png?w=80&Policy=p&Signature=s&Key-Pair-Id=k",
            "https://d.cloudfront.net/a.png?w=80",
        ),
        ("https://b.oss.aliyuncs.com/a.png?OSSAccessKeyId=a&Expires=1&Signature=s", "https://b.oss.aliyuncs.com/a.png"),
        (
            "https://b.cos.myqcloud.com/a.png?q-sign-algorithm=sha1&q-ak=a&q-signature=s",
            "https://b.cos.myqcloud.com/a.png",
        ),
        ("https://me:s3cret@example.org/a.png", "https://example.org/a.png"),
        ("HTTP://me@[::1/a.png?Token", "HTTP://[::1/a.png"),
    ],
)
def test_credentials_are_taken_out(reference: str, kept: str) -> None:
    assert kept_reference(reference) == kept


@pytest.mark.parametrize(
    "name",
    [
        *(
            "token",
            "X-Auth-Token",
            "accessToken",
            "authtoken",
            "access%5Ftoken",
            "client_secret",
            "password",
            "user.pwd",
        ),
        *("api_key", "apiKey", "apikey", "X-Goog-Credential", "session", "sessionId", "jwt", "auth", "sign", "SIG"),
    ],
)
def test_what_opens_an_address_is_known_by_its_name(name: str) -> None:
    assert kept_reference(f"https://example.org/get?id=5&{name}=s3cret") == "https://example.org/get?id=5"


def test_an_inlined_picture_is_kept_as_its_hash() -> None:
    kept = kept_reference("data:image/png;base64," + "A" * 1000)
    assert kept.startswith("data:image/png;sha256,")
    assert len(kept) < 100
    assert kept != kept_reference("data:image/png;base64," + "B" * 1000)


def test_only_values_that_may_lead_to_a_picture_are_kept() -> None:
    data = {"z": " /data/b.png ", "image": "s3://bucket/a.png", "text": "a cat", "number": 5, "list": ["/a.png"]}
    assert image_references(data) == (("image", "s3://bucket/a.png"), ("z", "/data/b.png"))


@pytest.mark.parametrize("reference", ["/data/upload/1/a\0.png", "data:image/p\0ng;base64,AAAA", "s3://b/\0a?\0=1"])
def test_a_reference_is_kept_without_what_a_database_cannot_hold(reference: str) -> None:
    assert "\0" not in kept_reference(reference)
    assert image_references({"image": reference}) == (("image", kept_reference(reference)),)
