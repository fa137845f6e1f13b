"""Text for logs and status lines."""

import re

_LONGEST = 500  # characters; what is named in a message may be as long as a request


def one_line(text: str) -> str:
    """Put text on one line that is not too long, without control characters that could forge or hide log lines."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text[:_LONGEST]).strip()
