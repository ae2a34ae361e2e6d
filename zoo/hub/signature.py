"""Signing a package, and checking who signed it, with Sigstore's library `model-signing`.

`model.sig` is a Sigstore bundle over the sha256 of every other file of the package. The library's own command checks
it as well, as `zoo verify` checks what that command signed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from zoo.base.install import install_line
from zoo.base.paths import local_path
from zoo.base.text import first_line, plural
from zoo.errors import InputError, PackageError
from zoo.hub.sums import ALL, SIGNATURE, complete

KEYLESS = "sigstore"
"""In place of a key file: sign as the person who logs in with Sigstore, or as the CI job that runs this."""

Sign = Callable[[Path], None]


class Trust(NamedTuple):
    """Who must have signed a package.

    Attributes:
        key: a file with a public key on an elliptic curve, in PEM.
        identity: who logged in with Sigstore, such as you@example.org; provider: the address of who knows them.
    """

    key: Path | None = None
    identity: str = ""
    provider: str = ""

    def __str__(self) -> str:
        """For messages: the key's path, or the identity."""
        return str(self.key) if self.key else f"{self.identity} ({self.provider})"


def trust_of(key: str | os.PathLike[str] | None, identity: str | None, provider: str | None) -> Trust | None:
    """Who must have signed, from what the user gave; None if nothing was asked for.

    Raises:
        InputError: a key and an identity, or one half of an identity.
    """
    if key is not None and (identity or provider):
        raise InputError("give a public key or an identity, not both")
    if bool(identity) != bool(provider):
        raise InputError(
            "an identity is the name and its provider: --identity you@example.org "
            "--identity-provider https://accounts.google.com"
        )
    if key is not None:
        return Trust(key=local_path(key))
    return Trust(identity=identity, provider=provider) if identity and provider else None


def signer(key: str | os.PathLike[str]) -> Sign:
    """What signs the package in a folder.

    Args:
        key: a file with a private key on an elliptic curve, in PEM and without a password; "sigstore": none.
    Raises:
        InputError: the library is not installed, or the file is no such key.
    """
    _need_library()
    from model_signing import signing

    config, word = signing.Config(), str(local_path(key))
    if word == KEYLESS:
        config.use_sigstore_signer(use_ambient_credentials=True)
    else:
        try:
            config.use_elliptic_key_signer(private_key=word)
        except Exception as error:  # the file may hold anything
            raise InputError(_no_key("--sign", word, "private", error)) from None

    def sign(folder: Path) -> None:
        try:
            config.set_hashing_config(_hashing()).sign(folder, folder / SIGNATURE)
        except Exception as error:  # with Sigstore: the network, the login, the transparency log
            raise PackageError(f"{folder}: cannot be signed: {_reason(error)}") from error

    return sign


def check_signature(folder: Path, trust: Trust) -> str:
    """Check that a package has a signature, by whom it must be, over every one of its files as they are.

    Returns:
        What was seen, in words.
    Raises:
        InputError: the library is not installed, or the key is no public key. PackageError: it does not hold.
    """
    _need_library()
    from model_signing import verifying

    config = verifying.Config().set_hashing_config(_hashing())
    if trust.key:
        try:
            config.use_elliptic_key_verifier(public_key=trust.key)
        except Exception as error:  # the file may hold anything
            raise InputError(_no_key("--key", str(trust.key), "public", error)) from None
    if not (folder / SIGNATURE).is_file():
        raise PackageError(f"{folder}: is not signed, because it has no {SIGNATURE}")
    try:
        if not trust.key:
            config.use_sigstore_verifier(identity=trust.identity, oidc_issuer=trust.provider)
        config.verify(folder, folder / SIGNATURE)
    except Exception as error:  # of a stranger's file, or of Sigstore
        raise PackageError(f"{folder}: {_difference(folder, trust, error)}") from error
    return f"signed by {trust}; {plural(len(_signed(folder)), 'file is', 'files are')} unchanged"


def _signed(folder: Path) -> list[str]:
    return [name for name in complete(folder) if name != SIGNATURE]


def _hashing() -> Any:
    """How the library hashes a folder: the files of a package and no others, whatever the signature says of that."""
    from model_signing import hashing

    class OfPackage(hashing.Config):
        """The files of a package, which are links in the Hub's cache."""

        def hash(self, model_path: Any, *, files_to_hash: Iterable[Any] | None = None) -> Any:
            """The hash of each file of the package but its signature."""
            folder = Path(model_path)
            return super().hash(folder, files_to_hash=[folder / name for name in _signed(folder)])

        def add_ignored_paths(self, **paths: Any) -> None:
            """Nothing: a signature does not decide which files it covers."""

    return OfPackage().set_ignored_paths(paths=[SIGNATURE]).set_allow_symlinks(True)


def _difference(folder: Path, trust: Trust, error: Exception) -> str:
    """What a signature that does not hold says: which files differ, or that it is somebody else's."""
    message = str(error)
    if message.startswith("Signature mismatch"):
        names = [name for name in ALL if name in message]
        return f"changed after it was signed: {', '.join(names)}" if names else "changed after it was signed"
    if message.startswith("Key mismatch"):
        return f"{SIGNATURE} is a signature by another key than {trust}"
    return f"{SIGNATURE} is no valid signature by {trust}: {_reason(error)}"


def _no_key(option: str, path: str, kind: str, error: Exception) -> str:
    """What is wrong with a file of a key, and what makes one."""
    if isinstance(error, OSError):
        return f"{option} {path}: cannot be read ({_reason(error)})"
    make = "ecparam -name prime256v1 -genkey -noout -out KEY" if kind == "private" else "ec -in KEY -pubout"
    needed = f"a {kind} key on an elliptic curve, in PEM without a password"
    return f"{option} {path}: is not {needed}; `openssl {make}` makes one"


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)


def _need_library() -> None:
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise InputError(f"signatures need the library model-signing: {install_line('sign')} ({error})") from None
