"""References to pictures in a task's data, reduced to what may be kept: no credentials, no inlined files."""

import re
from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import unquote_plus

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|/(?!/)|data:", re.IGNORECASE)
_USER = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/?#]*@", re.IGNORECASE)
# Names of what signs or opens an address: Amazon, Google, Alibaba, Tencent, CloudFront, Azure, and people's own.
_SECRET = re.compile(
    r"x-(amz|goog|oss|cos)-.*|q-(sign|ak|key|header|url)\b.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|key-pair-id|sig"
    r"|.*(token|signature|secret|password|passwd|pwd)([-_.].*)?"
    r"|(.*[-_.])?(sign|auth|authorization|credentials?|session([-_]?id)?|jwt|(api|access|auth|account)[-_]?key)([-_.].*)?",
    re.IGNORECASE,
)
# What stands beside a signature, Azure's above all, but names other things where there is none.
_BESIDE = re.compile(r"s[eiprstv]|s(rt|pr|ip|dd|es|ks|kt|ke|kv|koid|ktid|aoid|uoid|cid)|expires|policy", re.IGNORECASE)


def image_references(data: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return (key, reference) of every value in a task's data that may lead to a picture, in the keys' order."""
    found = [
        (key, kept_reference(value.strip()))
        for key, value in data.items()
        if isinstance(value, str) and _ADDRESS.match(value.strip())
    ]
    return tuple(sorted(found))


def kept_reference(reference: str) -> str:
    """Take user names, passwords, tokens and signatures out of a reference; an inlined file becomes its hash.

    NUL, which PostgreSQL cannot hold, goes as well.
    """
    if reference[:5].lower() == "data:":
        kind = re.split("[;,]", reference[5:105].replace("\0", ""), maxsplit=1)[0]
        return f"data:{kind};sha256,{sha256(reference.encode()).hexdigest()}"
    place, mark, query = _USER.sub(r"\1", reference.replace("\0", "")).partition("?")
    named = [(unquote_plus(part.partition("=")[0]), part) for part in query.split("&")]
    if not any(_SECRET.fullmatch(name) for name, _ in named):
        return place + mark + query
    kept = "&".join(part for name, part in named if not _SECRET.fullmatch(name) and not _BESIDE.fullmatch(name))
    return f"{place}?{kept}" if kept else place
