"""Text for logs and status lines."""

import re


def one_line(text: str) -> str:
    """Put text on one line, without control characters that could forge or hide log lines."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text).strip()
