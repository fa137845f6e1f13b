"""File names for the images of a data set: readable, relative, and fit for every file system."""

import re
from hashlib import sha256
from unicodedata import normalize
from urllib.parse import parse_qs, unquote

MAX_PART_BYTES = 200  # file systems end at 255; room for what is appended
MAX_NAME_BYTES = 1000

_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_WEB = ("http", "https")
_LOCAL_FILES = "/data/local-files"
_UPLOAD = re.compile(r"^.*/data/upload/\d+/(?:[0-9a-f]{8}-)?(?=[^/])", re.DOTALL)
# Refused by Windows, or invisible, or no text at all (lone surrogates).
_UNFIT = re.compile(r'[<>:"|?*\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def shown_reference(reference: str) -> str:
    """How a data set names an image's origin: without query, user name or inline data; local files by their path.

    Doing it twice changes nothing.
    """
    shown = reference.strip()
    while (shorter := _without_secrets(shown).strip()) != shown:
        shown = shorter
    return shown


def readable_name(reference: str) -> str:
    """A relative file name with slashes for an image that is named so in a task or a data set.

    Uploads lose Label Studio's folder and its eight random digits, addresses their host, local files nothing. What
    some file system refuses becomes ``_``, long parts are cut and end in a hash. Different references may get the same
    name: `told_apart` helps.
    """
    shown = shown_reference(reference)
    address = _ADDRESS.fullmatch(shown)
    path = address["rest"] if address else shown
    if shown.startswith("/") or (address and address["scheme"].lower() in _WEB):
        path = unquote(_UPLOAD.sub("", path))
    if shown[:5].lower() == "data:":
        path = ""
    parts = [part for part in map(_fit, path.replace("\\", "/").split("/")) if part]
    name = "/".join(parts) or "image"
    return name if len(name.encode()) <= MAX_NAME_BYTES else f"{_digest(name)}/{parts[-1]}"


def is_fit(name: str) -> bool:
    """Tell whether a name can be used as it is: every file system takes it, and it leads to no other folder."""
    return all(part and _fit(part, limit=255) == part for part in name.split("/"))


def told_apart(name: str, image_id: int) -> str:
    """The same name with the image's id before its ending."""
    folder, slash, file = name.rpartition("/")
    stem, ending = _divided(file)
    return f"{folder}{slash}{stem}-{image_id}{ending}"


def flattened(name: str) -> str:
    """The same name without folders, for where a file has the name of one of them."""
    return _fit(name.replace("/", "_"))


def collision_key(name: str) -> str:
    """Equal for names that some file system takes for the same one: case and composition of letters do not count."""
    return normalize("NFC", normalize("NFC", name).casefold())


def _without_secrets(reference: str) -> str:
    if reference[:5].lower() == "data:":
        return reference.partition(",")[0].partition(";")[0]
    address = _ADDRESS.fullmatch(reference)
    if address and address["scheme"].lower() not in _WEB:
        return reference  # keys of buckets may contain anything
    if not address and not reference.startswith("/"):
        return reference
    rest: str = address["rest"] if address else reference
    path, _, query = rest.partition("#")[0].partition("?")
    if path.rstrip("/").endswith(_LOCAL_FILES) and (places := parse_qs(query).get("d")):
        return places[0].lstrip("/")
    return f"{address['scheme']}://{address['host'].rpartition('@')[2]}{path}" if address else path


def _fit(part: str, limit: int = MAX_PART_BYTES) -> str:
    part = _UNFIT.sub("_", normalize("NFC", part)).strip(" ").rstrip(". ")
    if _RESERVED.match(part):
        part = f"_{part}"
    if len(part.encode()) <= limit:
        return part
    stem, ending = _divided(part)
    room = MAX_PART_BYTES - len(ending.encode()) - 9
    return f"{stem.encode()[:room].decode(errors='ignore')}-{_digest(part)}{ending}"


def _divided(file: str) -> tuple[str, str]:
    stem, dot, ending = file.rpartition(".")
    return (stem, dot + ending) if stem and len(ending.encode()) <= 10 else (file, "")


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]
