"""Links to images on the web, and the names that they have in a set: without secrets.

A link that was signed for a time has another signature whenever it is made: its name must not
depend on that, nor keep it. What is left of a link without its signature is its name.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

# parameters of a query that let their owner in
_SECRET = re.compile(r"(?i)[\w.-]*(sig|signature|token|key|secret|password|credential)")
# those that belong to a signature: of S3, Google, Alibaba, Tencent, CloudFront and Azure
_BESIDE_SECRET = re.compile(
    r"(?i)(x-(amz|goog|oss|cos)|q)-[\w-]+"
    r"|(aws|google|oss)?access(key)?id|key-pair-id|policy|expires"
    r"|s[verpti]|sr|spr|skoid|sktid|sk[testv]|ses|sdd"
)
_USER = re.compile(r"(?<=://)[^/?#@]*@")


def public_names(links: Sequence[str]) -> list[str]:
    """The names of links in a set: they themselves, but for their secrets.

    Args:
        links: addresses, of which some may be signed.

    Returns:
        A name for each; equal ones only of equal links. Links that differ in a secret alone have
        digests in their names.
    """
    names = [_without_secrets(link) for link in links]
    counts = Counter(name for name, _ in {*zip(names, links, strict=True)})
    return [
        name if counts[name] == 1 else f"{name}#{hashlib.sha256(link.encode()).hexdigest()[:8]}"
        for name, link in zip(names, links, strict=True)
    ]


def _without_secrets(link: str) -> str:
    """A link without its user, its signature and what belongs to that."""
    address, mark, query = _USER.sub("", link).partition("?")
    parameters = query.split("&")
    names = [parameter.partition("=")[0] for parameter in parameters]
    if not any(map(_SECRET.fullmatch, names)):
        return address + mark + query
    kept = [
        parameter
        for parameter, name in zip(parameters, names, strict=True)
        if not _SECRET.fullmatch(name) and not _BESIDE_SECRET.fullmatch(name)
    ]
    return f"{address}?{'&'.join(kept)}" if kept else address
