"""Strategies for requests that nobody should send: recorded ones with something wrong in them, and plain rubbish."""

import copy
import json
import math
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from tests.make import recorded, recordings

SECRET = "pl4nted-s3cret"
LONG = 200_000  # bytes; the application is told to refuse what is longer


@dataclass(frozen=True)
class Ask:
    """A request; ``target`` is percent-encoded, with its query."""

    method: str
    target: str
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"{self.method} {self.target} {self.headers} {self.content[:3000]!r}")  # all would be no help


# What parsers trip over. Deep lists are put in as text: Python's own encoder would refuse them.
_DEEP = "deep list of "
_LONG = "".join(sha256(bytes([number])).hexdigest() for number in range(60))  # and too mixed to be compressed
_TEXTS = ["", " ", "\x00", "\ud800", "a\nb\r\u2028c", "日本 😀 e\u0301", "%00", "1e999", "NaN", "[" * 2000, _LONG]
_NUMBERS = [0, -1, 2**31, 2**63 - 1, 2**63, 10**400, -(10**400), 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf]
_TIMES = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2026-02-30T00:00:00Z", "2026-11-23T08:46:43"]
_REFERENCES = [
    f"http://me:{SECRET}@127.0.0.1:9/a.png?token={SECRET}#key={SECRET}",
    f"http://me:half@{SECRET}@127.0.0.1:9/a.png",
    f"s3://key:{SECRET}@bucket/a.png",
    f"ftp://me:{SECRET}@127.0.0.1/a.png",
    f"/data/local-files/?token={SECRET}&d=a.png",
    f"/data/upload/1/../a.png?token={SECRET}",
    f"data:image/png;base64,{SECRET}",
    "http://[",
    "http://127.0.0.1:99999999/",
    "http://" + "a" * 300 + ".invalid/",
    "//127.0.0.1/a.png",
    "file:///etc/passwd",
]
_CONFIGS = [
    "<View/>",
    "<View",
    "<" + "View><" * 500,
    '<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>',
    '<?xml version="1.0" encoding="utf-16"?><View/>',
    f'<View><Image name="i" value="http://me:{SECRET}@127.0.0.1/a.png"/><RectangleLabels name="l" toName="i"/></View>',
    '<View><Image name="i" value="$i"/><RectangleLabels name="l" toName="i"><Label value=""/></RectangleLabels></View>',
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="'
    + _LONG
    + '"/></RectangleLabels></View>',
]
# What is odd of a certain field only, and would hardly ever meet it by chance.
_FITTING: dict[str, list[Any]] = {
    **dict.fromkeys(("label_config", "schema"), _CONFIGS),
    **dict.fromkeys(("created_at", "updated_at"), _TIMES),
    **dict.fromkeys(("x", "y", "width", "height", "rotation", "original_width", "threshold"), _NUMBERS),
    "image": _REFERENCES,
}
_odd = st.one_of(
    st.sampled_from([None, True, False, [], {}, [[]], {"": {}}, [None], {"id": "1"}]).map(copy.deepcopy),
    st.sampled_from(_NUMBERS),
    st.sampled_from([*_TEXTS, *_TIMES, *_REFERENCES, *_CONFIGS]),
    st.sampled_from([100, 400, 900, 5000]).map(lambda depth: f"{_DEEP}{depth}"),
    st.integers(),
    st.text(max_size=5),
)


def with_secrets(path: str, body: Any) -> Any:
    """Put a secret wherever Label Studio or its users would: none of it may be told on."""
    body = copy.deepcopy(body)
    if path == "/setup":
        return body | {"access_token": SECRET, "hostname": f"http://me:{SECRET}@studio"}
    if path == "/predict":
        body["params"] = (body.get("params") or {}) | {"login": SECRET, "password": SECRET}
        for task in body["tasks"]:
            task["data"]["other"] = f"http://me:{SECRET}@127.0.0.1/?X-Amz-Signature={SECRET}"
        return body
    secrets = ("token", "task_data_login", "task_data_password", "access_token")
    return body | {"project": body["project"] | dict.fromkeys(secrets, SECRET)}


PATHS = ("/setup", "/predict", "/webhook")
RECORDED = {path: {name: with_secrets(path, recorded(name)["json"]) for name in recordings(path)} for path in PATHS}


@st.composite
def mutated(draw: st.DrawFn, path: str, name: str) -> object:
    """A recorded document with one to three of its places changed, renamed, taken out or doubled."""
    body = copy.deepcopy(RECORDED[path][name])
    for _ in range(draw(st.integers(1, 3))):
        holder: Any = body
        key: Any = draw(st.sampled_from(list(body)))
        while draw(st.integers(0, 3)) and _keys(holder[key]):  # else long lists would have nearly all of the changes
            holder = holder[key]
            key = draw(st.sampled_from(_keys(holder)))
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "double"]))
        if change == "remove":
            del holder[key]
        elif change == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(_TEXTS))] = holder.pop(key)
        elif change == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            fitting = _FITTING.get(key, [])
            holder[key] = draw(st.sampled_from(fitting) if draw(st.booleans()) and fitting else _odd)
        if not body:
            break
    return body


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []


def encoded(body: Any) -> bytes:
    """The document's JSON, with its deep lists."""
    text = json.dumps(body)
    for depth in (100, 400, 900, 5000):
        text = text.replace(f'"{_DEEP}{depth}"', "[" * depth + "]" * depth)
    return text.encode()


_HEADERS = {
    "Content-Type": ["application/json", "text/plain", "multipart/form-data; boundary=x", "a; charset=x"],
    "Content-Encoding": ["gzip", "\x80"],
    "Content-Length": ["-1", "x", "9" * 30, "0"],
    "Authorization": [
        "Basic",
        f"Basic {SECRET}",
        "Basic \xe9",
        "Basic bWU6",
        f"Bearer {SECRET}",
        "Basic " + "A" * 9000,
    ],
    "X-Glip-Label-Secret": ["", f"{SECRET}x", "\xe9", "x" * 9000],
    "Accept": ["", "text/html", "*/*;q=x"],
    "Host": ["", "a b", "[", "x" * 300],
    "Expect": ["100-continue"],
    "Range": ["bytes=0-", "bytes=x"],
    "If-None-Match": ["*"],
    "Cookie": [f"session={SECRET}"],
}
_headers = st.lists(
    st.sampled_from([(name, value) for name, values in _HEADERS.items() for value in values]),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(dict)


@st.composite
def posts(draw: st.DrawFn) -> Ask:
    """A recorded request with something wrong in it: changed, cut off, in another encoding, or rubbish."""
    path = draw(st.sampled_from(PATHS))
    content = encoded(draw(mutated(path, draw(st.sampled_from(sorted(RECORDED[path]))))))
    kind = draw(st.integers(0, 19))
    if kind == 0:
        content = content[: draw(st.integers(0, len(content)))]
    elif kind == 1:
        content = content.decode().encode(draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "cp037"])))
    elif kind == 2:
        content = draw(st.binary(max_size=30)) + content[: draw(st.sampled_from([0, 100]))]
    return Ask("POST", path, content)


_TARGETS = [
    "",
    "/",
    "//health",
    "/health/",
    "/predict/../setup",
    "/x%00",
    "/%ff",
    "/%F0%9F%98%80",
    "/a%0Ab",
    "/" + "x" * 9000,
]
asks = st.builds(
    Ask,
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "LOCK"]),
    st.one_of(
        st.sampled_from(["/health", "/setup", "/predict", "/webhook", "/versions", f"/health?key={SECRET}"]),
        st.sampled_from(_TARGETS),
        st.text(max_size=9).map(lambda text: "/" + quote(text, safe="/?%")),
    ),
    st.sampled_from([b"", b"{}", b"\xff", b" " * (LONG + 1), json.dumps({"action": "START_TRAINING"}).encode()]),
    _headers,
)
