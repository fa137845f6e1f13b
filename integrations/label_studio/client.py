"""Label Studio's credentials: both kinds of token, as the header that opens its files."""

from collections.abc import Callable
from threading import Lock
from time import monotonic

import requests

from backend.errors import LabelStudioError

_LIFETIME = 240.0  # seconds; access tokens live 300
_TIMEOUT = 10.0


class LabelStudioCredentials:
    """Authorization for one Label Studio; safe to share between threads.

    A legacy token is sent as it is. A personal access token (a JWT) is only good for getting access tokens, which are
    renewed before they expire.
    """

    def __init__(self, url: str, token: str | None, clock: Callable[[], float] = monotonic) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._clock = clock
        self._lock = Lock()
        self._access: tuple[str, float] | None = None

    def header(self) -> str | None:
        """Return the value of the ``Authorization`` header, or None where no token is configured.

        Raises:
            LabelStudioError: the personal access token is refused, or Label Studio is away.
        """
        if self._token is None:
            return None
        if self._token.count(".") != 2:  # a JWT has three parts
            return f"Token {self._token}"
        with self._lock:
            if self._access is None or self._clock() >= self._access[1]:
                self._access = self._refresh(self._token), self._clock() + _LIFETIME
            return f"Bearer {self._access[0]}"

    def _refresh(self, token: str) -> str:
        try:
            answer = requests.post(
                f"{self._url}/api/token/refresh/",
                json={"refresh": token},
                timeout=_TIMEOUT,
                allow_redirects=False,
            )
            access = answer.json().get("access") if answer.status_code == 200 else None
        except (requests.RequestException, ValueError, AttributeError) as error:
            raise LabelStudioError(
                f"Label Studio at {self._url} gives no access token ({type(error).__name__}): is it up, and is this "
                "its address?"
            ) from error
        if not isinstance(access, str):
            raise LabelStudioError(
                f"Label Studio at {self._url} refuses the personal access token (HTTP {answer.status_code}): make a "
                "new one under Account & Settings and set GLIP_LABEL_LABEL_STUDIO_TOKEN"
            )
        return access
