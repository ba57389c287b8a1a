"""Takes secrets out of text by the shape of their values, so that `num_draft_tokens=4` survives."""

from __future__ import annotations

import math
import re
from collections import Counter

REDACTED = "<redacted>"

_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_[A-Za-z0-9]{20,}"
    r"|sk-(?=[\w-]*\d)[\w-]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}"
    r"|glpat-[\w-]{20,}"
    r"|xox[abprs]-[\w-]{10,}"
    r"|A[KS]IA[A-Z0-9]{16}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"  # a signed JSON web token
    r")"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")
_ASSIGNMENT = re.compile(
    r"((?:password|passwd|secret|token|api_?key|access_?key|credential)s?"
    r"[\"']?(?:\s*[:=]\s*|\s+)[\"']?)([A-Za-z0-9+/=_-]{20,})",
    re.IGNORECASE,
)
_SECRET_BITS = 3.0  # per character; 20 random hex digits have about 3.3


def redact(text: str) -> str:
    text = _PRIVATE_KEY.sub(REDACTED, text)
    text = _URL_PASSWORD.sub(rf"\g<1>{REDACTED}", text)
    text = _SHAPES.sub(REDACTED, text)
    return _ASSIGNMENT.sub(_assignment, text)


def _assignment(match: re.Match[str]) -> str:
    return match[1] + REDACTED if _looks_random(match[2]) else match[0]


def _looks_random(value: str) -> bool:
    """Digits among letters, and many bits per character."""
    mixed = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
    return bool(mixed) and bits_per_character(value) >= _SECRET_BITS


def bits_per_character(text: str) -> float:
    """Shannon entropy of the characters' frequencies."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)
