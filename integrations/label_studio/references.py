"""References to pictures in a task's data, reduced to what may be kept: no credentials, no inlined files."""

import re
from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import parse_qsl

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|/(?!/)|data:", re.IGNORECASE)
_USER = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/?#]*@", re.IGNORECASE)
# Names of what signs or opens an address: Amazon, Google, Azure, CloudFront, and what people call their own.
_SECRET = re.compile(
    r"^(x-amz-.*|x-goog-.*|x-oss-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|expires|policy|key-pair-id"
    r"|sig|s[a-z]|ske|sks|skt|skv|skoid|sktid|.*(sign|token|secret|passw|pwd|auth|credential|api.?key|session|jwt).*|key)$",
    re.IGNORECASE,
)


def image_references(data: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return (key, reference) of every value in a task's data that may lead to a picture, in the keys' order."""
    found = [
        (key, kept_reference(value.strip()))
        for key, value in data.items()
        if isinstance(value, str) and _ADDRESS.match(value.strip())
    ]
    return tuple(sorted(found))


def kept_reference(reference: str) -> str:
    """Take user names, passwords and signed query strings out of a reference; an inlined file becomes its hash."""
    if reference[:5].lower() == "data:":
        kind = re.split("[;,]", reference[5:105], maxsplit=1)[0]
        return f"data:{kind};sha256,{sha256(reference.encode()).hexdigest()}"
    place, _, query = reference.partition("?")
    signed = any(_SECRET.match(name) for name, _ in parse_qsl(query, keep_blank_values=True))
    return _USER.sub(r"\1", place if signed else reference)
