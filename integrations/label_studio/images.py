"""Getting the picture a task refers to, without being led anywhere else.

The reference comes from whoever may import tasks, so it is not trusted: credentials go to Label Studio's own origin
only; private addresses are refused unless they are Label Studio's own or were listed; every redirect is checked
again; connections go to the very address that was checked, so that a name cannot change its mind in between.
"""

import base64
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from threading import Timer
from time import monotonic
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import certifi
from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.util import parse_url

from backend.domain.records import Picture
from backend.errors import FetchRefusedError, ImageError
from integrations.label_studio.references import kept_reference

_CLOUD = re.compile(r"(s3|gs|azure-blob)://", re.IGNORECASE)
_CLIMBS = re.compile(r"(^|[/\\=?&])\.\.([/\\&?#]|$)")
_OWN_FILES = re.compile(r"/data/(upload|local-files)/")  # of Label Studio, in a path
_REFUSED = (401, 403)
_SETTING = "GLIP_LABEL_IMAGE_HOSTS"
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """``seconds`` is for one picture with all its redirects."""

    max_bytes: int = 100_000_000
    seconds: float = 20.0
    max_redirects: int = 5


@dataclass(frozen=True, slots=True)
class LabelStudioSite:
    """Where Label Studio is reached, and what opens its files: ``authorization`` gives the header's value."""

    url: str
    authorization: Callable[[], str | None]


class TaskImages:
    """``ports.Images`` for tasks: uploads, local files, http(s), cloud storage through Label Studio, data URIs."""

    def __init__(
        self,
        decode: Callable[[bytes, str], Picture],
        label_studio: LabelStudioSite | None = None,
        allowed_hosts: frozenset[str] = frozenset(),
        limits: FetchLimits = FetchLimits(),
    ) -> None:
        self._decode = decode
        self._label_studio = label_studio
        self._home = None if label_studio is None else _origin(urlsplit(label_studio.url))
        self._allowed_hosts = allowed_hosts
        self._limits = limits

    def fetch(self, reference: str, task_id: int | None = None) -> Picture:
        """Get and decode the picture.

        Raises:
            FetchRefusedError: the reference leads somewhere that this service does not go.
            ImageError: it cannot be had, or is no image; the message names it without its query string.
            LabelStudioError: Label Studio gives no access token.
        """
        reference = reference.strip()
        name = _shown(reference)
        if reference[:5].lower() == "data:":
            return self._decode(_inline(reference, self._limits.max_bytes), name)
        return self._decode(self._download(self._locate(reference, name, task_id), name), name)

    def _locate(self, reference: str, name: str, task_id: int | None) -> str:
        if _CLIMBS.search(unquote(unquote(reference))):
            raise FetchRefusedError(f"{name}: a path with '..' is refused")
        if _CLOUD.match(reference):
            if task_id is None:
                raise ImageError(f"{name}: a cloud address needs its task")
            uri = base64.urlsafe_b64encode(reference.encode()).decode()
            return f"{self._site(name).url}/tasks/{task_id}/presign/?fileuri={quote(uri)}"
        if reference.startswith("/") and not reference.startswith("//"):
            site = urlsplit(self._site(name).url)
            inside = reference if reference.startswith(f"{site.path}/") else site.path + reference
            return f"{site.scheme}://{site.netloc}{inside}"
        if not reference.lower().startswith(("http://", "https://")):
            raise FetchRefusedError(f"{name}: neither an address (http, https, s3, gs, azure-blob) nor a /data/ path")
        return reference

    def _site(self, name: str) -> LabelStudioSite:
        if self._label_studio is None:
            raise ImageError(f"{name}: is kept in Label Studio: set GLIP_LABEL_LABEL_STUDIO_URL")
        return self._label_studio

    def _download(self, url: str, name: str) -> bytes:
        deadline = monotonic() + self._limits.seconds
        try:
            for _ in range(self._limits.max_redirects + 1):
                with _opened(url, self._addresses(url, name), self._credentials(url), deadline) as response:
                    location = response.headers.get("Location")
                    if response.status in _REFUSED and (own := self._own_file(url)) is not None:
                        location = own
                    elif response.status not in (301, 302, 303, 307, 308) or location is None:
                        self._check_status(response.status, url, name)
                        return self._body(response, name, deadline)
                url = urljoin(url, location)
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            if monotonic() >= deadline:
                raise ImageError(f"{name}: not there after {self._limits.seconds:g} s") from error
            raise ImageError(f"{name}: cannot be fetched ({type(error).__name__})") from error
        raise FetchRefusedError(f"{name}: more than {self._limits.max_redirects} redirects")

    def _addresses(self, url: str, name: str) -> list[str]:
        """Resolve the URL's host once and return the addresses to connect to, if this service may."""
        parts = urlsplit(url)
        host = parts.hostname
        if parts.scheme not in _PORTS or not host:
            raise FetchRefusedError(f"{name}: leads to {_shown(url)}, which is no web address")
        if parts.username is not None:
            raise FetchRefusedError(f"{name}: an address with a user name in it is refused")
        origin = _origin(parts)
        found = socket.getaddrinfo(host, origin[2], type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        known = origin == self._home or not self._allowed_hosts.isdisjoint((host, f"{host}:{origin[2]}"))
        if not known and not all(map(_is_public, addresses)):
            raise FetchRefusedError(
                f"{name}: {host} is a private address: if it is Label Studio set GLIP_LABEL_LABEL_STUDIO_URL to it, "
                f"else list it in {_SETTING}"
            )
        return addresses

    def _credentials(self, url: str) -> dict[str, str]:
        if self._label_studio is None or _origin(urlsplit(url)) != self._home:
            return {}
        header = self._label_studio.authorization()
        return {} if header is None else {"Authorization": header}

    def _own_file(self, url: str) -> str | None:
        """Where the configured Label Studio has what lies at another address, which may be another name of it."""
        parts = urlsplit(url)
        path = _OWN_FILES.search(parts.path)
        if self._label_studio is None or path is None or _origin(parts) == self._home:
            return None
        return self._label_studio.url + parts._replace(scheme="", netloc="", path=parts.path[path.start() :]).geturl()

    def _check_status(self, status: int, url: str, name: str) -> None:
        if status in _REFUSED and _origin(urlsplit(url)) == self._home:
            raise ImageError(
                f"{name}: Label Studio refuses (HTTP {status}): check GLIP_LABEL_LABEL_STUDIO_TOKEN and its rights"
            )
        if status in _REFUSED and kept_reference(url) == url:
            raise ImageError(
                f"{name}: cannot be fetched without a signature (HTTP {status}), and signatures are not kept: "
                "name it s3://, gs:// or azure-blob://, or upload it"
            )
        if status != 200:
            raise ImageError(f"{name}: cannot be fetched (HTTP {status})")

    def _body(self, response: BaseHTTPResponse, name: str, deadline: float) -> bytes:
        body = bytearray()
        while chunk := response.read1(1 << 16):
            body += chunk
            if len(body) > self._limits.max_bytes:
                raise ImageError(f"{name}: larger than {self._limits.max_bytes:,} bytes")
        if monotonic() >= deadline:  # the end may be that of a cut connection
            raise TimeoutError
        return bytes(body)


@contextmanager
def _opened(url: str, addresses: Sequence[str], headers: dict[str, str], deadline: float) -> Iterator[BaseHTTPResponse]:
    """Ask the first address that answers for the URL, under its own host name, without following redirects.

    At the deadline the connection is cut: timeouts of sockets begin anew with every byte.
    """
    parts = urlsplit(url)
    authority = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    connection = _connected(parts, addresses, deadline)
    end = Timer(max(0.0, deadline - monotonic()), _cut, (connection.sock,))
    end.daemon = True
    end.start()
    try:
        connection.request(
            "GET",
            parse_url(url).request_uri,
            headers={"Host": authority, "User-Agent": "glip-label", "Accept-Encoding": "identity", **headers},
            preload_content=False,
            decode_content=False,
        )
        with connection.getresponse() as response:
            yield response
    finally:
        end.cancel()
        end.join()  # what it cuts must not be another connection by then
        connection.close()


def _connected(parts: SplitResult, addresses: Sequence[str], deadline: float) -> HTTPConnection:
    for address in addresses:
        if (left := deadline - monotonic()) <= 0:
            break
        connection = _connection(parts, address, min(5.0, left))
        try:
            connection.connect()
        except (NewConnectionError, ConnectTimeoutError):
            connection.close()
            if address == addresses[-1]:
                raise
        else:
            connection.timeout = left
            return connection
    raise TimeoutError


def _connection(parts: SplitResult, address: str, seconds: float) -> HTTPConnection:
    scheme, host, port = _origin(parts)
    if scheme == "http":
        return HTTPConnection(address, port, timeout=seconds)
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return HTTPSConnection(
        address, port, timeout=seconds, ssl_context=context, server_hostname=host, assert_hostname=host
    )


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):  # where the other side was faster
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # that of TLS would first take the encryption off


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None and not inner.is_global:
            return False
    return ip.is_global and not ip.is_multicast


def _inline(reference: str, max_bytes: int) -> bytes:
    header, comma, payload = reference.partition(",")
    if len(payload) > 2 * max_bytes:
        raise ImageError(f"data URI: larger than {max_bytes:,} bytes")
    if not comma or not header.lower().endswith(";base64"):
        raise ImageError("data URI: only base64 images are read, as in data:image/png;base64,...")
    try:
        return base64.b64decode(unquote(payload), validate=True)
    except ValueError as error:  # also where it is not even ASCII
        raise ImageError("data URI: its base64 is damaged") from error


def _shown(reference: str) -> str:
    """Name a reference for people and logs: no query string but local-files' path, no password, not too long."""
    if reference[:5].lower() == "data:":
        return "data URI"
    visible = reference
    if not _CLOUD.match(reference):  # whose keys may hold any sign
        visible, _, query = reference.partition("#")[0].partition("?")
        if visible.endswith("/data/local-files/") and query.startswith("d="):
            visible += f"?{query.partition('&')[0]}"
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", re.sub(r"//[^/?#]*@", "//", visible))[:200]
