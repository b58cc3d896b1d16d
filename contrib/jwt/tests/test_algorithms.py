"""Every algorithm, with keys from everywhere; and keys that are not taken."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from contrib.jwt.tests.kit import SECRET, Kit
from mqtrio import ConfigurationError
from mqtrio.testing import open_harness
from mqtrio_jwt import Jwt, JwtSettings
from mqtrio_jwt.algorithms import ALGORITHMS, is_symmetric
from mqtrio_jwt.keys import local_keys, read_set

ALL = tuple(ALGORITHMS)


def pem_of(algorithm: str) -> str:
    return f"{'RS256' if algorithm[:2] in ('RS', 'PS') else algorithm}.pem"


@pytest.mark.parametrize("origin", ["own", "set"])
@pytest.mark.parametrize("algorithm", ALL)
async def test_every_algorithm(algorithm: str, origin: str, folder: Path, kit: Kit) -> None:
    given: dict[str, Any] = {"algorithms": (algorithm,)}
    if origin == "set":
        path = folder / "keys.json"
        path.write_bytes(kit.key_set(algorithm, kid="k", alg=algorithm, use="sig"))
        given["jwks_file"] = path
    elif is_symmetric(algorithm):
        given["secret"] = SECRET
    else:
        given["public_keys"] = (folder / pem_of(algorithm),)
    plugin = Jwt(JwtSettings(**given), name="jwt")
    async with open_harness(plugins=[plugin]) as harness:
        for headers in (None, {"kid": "k"}):
            token = kit.token(algorithm, headers)
            ann = await harness.client("ann", username="ignored", password=token)
            assert harness.broker.clients()[0].username == "ann"
            await ann.disconnect()
        # One that only differs in its last claims is none.
        forged = kit.token(algorithm, sub="eve").rsplit(b".", 1)[0] + b"." + token.rsplit(b".")[-1]
        assert (await harness.refused("eve", password=forged)).reason_code == 0x86
        # Any other algorithm is refused, whatever it is signed with.
        for other in ALL:
            if other != algorithm:
                wrong = kit.token(other, {"kid": "k"})
                assert (await harness.refused("eve", password=wrong)).reason_code == 0x86


def pem(key: Any) -> bytes:
    data: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


#: Settings that can't be -> what is said.
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no algorithm": ({"algorithms": ()}, "name one"),
    "none": ({"algorithms": ("none",)}, "anybody can make a token"),
    "None": ({"algorithms": ("ES256", "NONE")}, "anybody can make a token"),
    "unknown": ({"algorithms": ("ES256K",)}, "is none of"),
    "no key": ({"algorithms": ("RS256",)}, "public_keys or jwks_file"),
    "a secret for RS256": ({"algorithms": ("RS256",), "secret": SECRET}, "needs keys"),
    "a key for HS256": ({"algorithms": ("HS256",), "public_keys": (Path("x"),)}, "needs keys"),
    "no use for a secret": (
        {"algorithms": ("RS256",), "secret": SECRET, "public_keys": (Path("x"),)},
        "no algorithm of the list uses it",
    ),
    "no use for a key": (
        {"algorithms": ("HS256",), "secret": SECRET, "public_keys": (Path("x"),)},
        "no algorithm of the list uses public keys",
    ),
    "keys by http": ({"algorithms": ("RS256",), "jwks_url": "http://a.example/k"}, "https"),
    "keys by file": ({"algorithms": ("RS256",), "jwks_url": "file:///etc/passwd"}, "https"),
    "a port": ({"algorithms": ("RS256",), "jwks_url": "https://a.example:99999/k"}, "port"),
    "no host": ({"algorithms": ("RS256",), "jwks_url": "https:///k"}, "no host"),
    "a password": ({"algorithms": ("RS256",), "jwks_url": "https://a:b@c.example/k"}, "user name"),
    "an issuer by http": ({"algorithms": ("RS256",), "oidc": "http://a.example"}, "https"),
    "a template": (
        {"algorithms": ("HS256",), "secret": SECRET, "username": "{sub"},
        "is no template",
    ),
    "a rule": ({"algorithms": ("HS256",), "secret": SECRET, "publish": ("a/#/b",)}, "#"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_can_not_be(case: str) -> None:
    given, said = SETTINGS[case]
    with pytest.raises((ValueError, ConfigurationError), match=said):
        JwtSettings(**given)


#: Secrets that are refused -> algorithm, and what is said.
SECRETS: dict[str, tuple[str, str]] = {
    "short": ("HS256", "at least 32 bytes"),
    "0123456789abcdef0123456789abcde": ("HS256", "at least 32 bytes"),
    "0123456789abcdef0123456789abcdef": ("HS384", "HS384 needs 48 bytes"),
    SECRET[:63]: ("HS512", "HS512 needs 64 bytes"),
    "a" * 64: ("HS256", "too easy to guess"),
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE": ("HS256", "is a key file"),
}


@pytest.mark.parametrize("secret", SECRETS)
async def test_weak_secrets_keep_the_broker_from_starting(secret: str) -> None:
    algorithm, said = SECRETS[secret]
    plugin = Jwt(JwtSettings(algorithms=(algorithm,), secret=secret), name="jwt")
    with pytest.raises(Exception, match=said) as caught:
        async with open_harness(plugins=[plugin]):
            pass
    assert secret not in str(caught.value)
    assert secret not in repr(plugin)


def private(key: Any) -> bytes:
    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data


def test_files_that_are_no_keys(folder: Path, kit: Kit) -> None:
    files: dict[str, tuple[bytes | None, str]] = {
        "missing": (None, "No such file"),
        "empty": (b"", "PEM"),
        "garbage": (b"\xff" * 100, "PEM"),
        "huge": (b"x" * (1024 * 1024 + 1), "larger than"),
        "private": (private(kit.private["ES256"]), "private key"),
        "small": (pem(rsa.generate_private_key(65537, 1024).public_key()), "2048"),
        "curve": (pem(ec.generate_private_key(ec.SECP256K1()).public_key()), "P-256"),
        "other": (kit.pem("EdDSA"), "no algorithm of the list"),
    }
    for name, (data, said) in files.items():
        path = folder / name
        if data is not None:
            path.write_bytes(data)
        settings = JwtSettings(algorithms=("RS256", "ES256"), public_keys=(path,))
        with pytest.raises(ConfigurationError, match=said):
            local_keys(settings)


#: Key sets -> how many keys are in them for ES256 and HS256, or what is said.
SETS: dict[str, tuple[Any, int | str]] = {
    "no JSON": (b"{", "not JSON"),
    "no object": (b"[]", "no key set"),
    "a name twice": (b'{"keys": [], "keys": []}', "stands twice"),
    "deep": (b'{"keys":' * 100_000, "nested"),
    "empty": ({"keys": []}, 0),
    "no keys": ({"keys": [1, "x", None]}, 0),
    "kid is no text": ({"keys": [{"kty": "EC", "kid": 1}]}, "kid"),
    "unknown kind": ({"keys": [{"kty": "XY"}]}, 0),
    "broken": ({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}, "can't be used"),
    "weak": ({"keys": [{"kty": "oct", "k": "AAAA"}]}, "at least 32"),
}


@pytest.mark.parametrize("case", SETS)
def test_sets(case: str) -> None:
    given, expected = SETS[case]
    data = given if isinstance(given, bytes) else json.dumps(given).encode()
    wanted = frozenset({"ES256", "HS256"})
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            read_set(data, wanted, secrets=True)
    else:
        assert len(read_set(data, wanted, secrets=True)) == expected


def test_what_a_key_of_a_set_is_for(kit: Kit) -> None:
    wanted = frozenset(ALL)
    assert len(read_set(kit.key_set("ES256", use="enc"), wanted)) == 0
    assert len(read_set(kit.key_set("ES256", key_ops=["sign"]), wanted)) == 0
    assert len(read_set(kit.key_set("RS256", alg="RSA-OAEP"), wanted)) == 0
    found = read_set(kit.key_set("RS256", alg="RS512"), wanted)
    assert found.find("RS512", None)
    assert not found.find("RS256", None)
    # A secret in a set that came over the network is never used.
    assert len(read_set(kit.key_set("HS256"), wanted)) == 0
    assert len(read_set(kit.key_set("HS256"), wanted, secrets=True)) == 1
