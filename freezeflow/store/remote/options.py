"""How a shared cache is reached and whom it is believed from."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """A shared cache.

    Args:
        url: Where it is; empty for none.
        push: Runs write to it, too.
        timeout: Seconds that one exchange with it may take, without the time for its bytes.
        max_file_size: Files that a step published are shared up to so many bytes.
        trusted_keys: Public ed25519 keys (base64); an entry counts only with the signature of one.
            Empty: entries need no signature.
        signing_key: The secret ed25519 key (base64) that signs what is written; empty for none.
        token: For HTTP: sent as ``Authorization: Bearer``; empty for none.
    """

    url: str = ""
    push: bool = False
    timeout: float = 10.0
    max_file_size: int = 100_000_000
    trusted_keys: tuple[str, ...] = ()
    signing_key: str = dataclasses.field(default="", repr=False)
    token: str = dataclasses.field(default="", repr=False)
