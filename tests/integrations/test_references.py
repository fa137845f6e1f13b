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
        ("https://cdn.example.org/a.png?v=1&access_token=s", "https://cdn.example.org/a.png"),
        ("https://me:s3cret@example.org/a.png", "https://example.org/a.png"),
        ("HTTP://me@[::1/a.png?Token", "HTTP://[::1/a.png"),
    ],
)
def test_credentials_are_taken_out(reference: str, kept: str) -> None:
    assert kept_reference(reference) == kept


def test_an_inlined_picture_is_kept_as_its_hash() -> None:
    kept = kept_reference("data:image/png;base64," + "A" * 1000)
    assert kept.startswith("data:image/png;sha256,")
    assert len(kept) < 100
    assert kept != kept_reference("data:image/png;base64," + "B" * 1000)


def test_only_values_that_may_lead_to_a_picture_are_kept() -> None:
    data = {"z": " /data/b.png ", "image": "s3://bucket/a.png", "text": "a cat", "number": 5, "list": ["/a.png"]}
    assert image_references(data) == (("image", "s3://bucket/a.png"), ("z", "/data/b.png"))
