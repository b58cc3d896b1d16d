"""Tokens of somebody who wants in: each is refused, and a victim's session stays as it is."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from contrib.jwt.tests.kit import SECRET, Kit, raw
from mqtrio import Allow, Deny
from mqtrio.testing import HookRecorder, open_harness
from mqtrio_jwt import Jwt, JwtSettings
from mqtrio_jwt.errors import RefusedToken
from mqtrio_jwt.token import Judge

NO_GOOD = 0x86
NOW = time.time()
GOOD = {"iss": "https://id.example", "aud": "mqtt", "sub": "victim", "exp": NOW + 3600}
HEADER = {"alg": "RS256", "typ": "JWT", "kid": "one"}


def hs(key: bytes) -> Callable[[bytes], bytes]:
    return lambda signed: hmac.new(key, signed, hashlib.sha256).digest()


def hostile(kit: Kit) -> dict[str, tuple[bytes, int]]:
    """What is tried -> the token, and the reason code."""
    key = kit.private["RS256"]
    now = time.time()  # not when this was imported, which may be minutes ago

    def rs(signed: bytes) -> bytes:
        data: bytes = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return data

    def other(signed: bytes) -> bytes:
        return kit.stranger.sign(signed, padding.PKCS1v15(), hashes.SHA256())

    good = raw(HEADER, GOOD, rs)
    head, body, tail = good.split(b".")
    text = json.dumps(GOOD)

    def claims(**changed: Any) -> bytes:
        merged = {k: v for k, v in (GOOD | changed).items() if v is not None}
        return raw(HEADER, merged, rs)

    def header(**changed: Any) -> bytes:
        return raw({k: v for k, v in (HEADER | changed).items() if v is not None}, GOOD, rs)

    return {
        # time
        "expired": (claims(exp=now - 60), NO_GOOD),
        "expired long ago": (claims(exp=0), NO_GOOD),
        "not yet valid": (claims(nbf=now + 60), NO_GOOD),
        "made in the future": (claims(iat=now + 60), NO_GOOD),
        "without an end": (claims(exp=None), NO_GOOD),
        "an end that is text": (claims(exp=str(now + 60)), NO_GOOD),
        "an end that is true": (claims(exp=True), NO_GOOD),
        "an end that is an object": (claims(exp={"a": 1}), NO_GOOD),
        "an end after the end": (claims(exp=1e300), NO_GOOD),
        "an infinite end": (
            raw(HEADER, text.replace(str(GOOD["exp"]), "1e999").encode(), rs),
            NO_GOOD,
        ),
        "an end of infinity": (
            raw(HEADER, text.replace(str(GOOD["exp"]), "Infinity").encode(), rs),
            NO_GOOD,
        ),
        "an end of many digits": (
            raw(HEADER, text.replace(str(GOOD["exp"]), "9" * 5000).encode(), rs),
            NO_GOOD,
        ),
        "a negative end": (claims(exp=-1), NO_GOOD),
        # for whom, from whom
        "another issuer": (claims(iss="https://evil.example"), NO_GOOD),
        "an issuer with a slash more": (claims(iss="https://id.example/"), NO_GOOD),
        "an issuer in an array": (claims(iss=["https://id.example"]), NO_GOOD),
        "no issuer": (claims(iss=None), NO_GOOD),
        "another audience": (claims(aud="web"), NO_GOOD),
        "other audiences": (claims(aud=["web", "MQTT"]), NO_GOOD),
        "an audience that is an object": (claims(aud={"mqtt": 1}), NO_GOOD),
        "no audience": (claims(aud=None), NO_GOOD),
        # who
        "no subject": (claims(sub=None), NO_GOOD),
        "an empty subject": (claims(sub=""), NO_GOOD),
        "a subject that is an array": (claims(sub=["victim"]), NO_GOOD),
        "a subject with a zero byte": (claims(sub="victim\0"), NO_GOOD),
        "a subject with half a character": (
            raw(HEADER, text.replace("victim", "\\ud800").encode(), rs),
            NO_GOOD,
        ),
        "a subject that turns its text around": (claims(sub="mitciv\u202e"), NO_GOOD),
        "a subject of two lines": (claims(sub="victim\nadmin"), NO_GOOD),
        "a jti that is a number": (claims(jti=7), NO_GOOD),
        "subject twice": (
            raw(HEADER, text.replace('"sub"', '"sub": "eve", "sub"').encode(), rs),
            NO_GOOD,
        ),
        "claims that are no object": (raw(HEADER, ["victim"], rs), NO_GOOD),
        "claims that are no JSON": (raw(HEADER, b"{sub: victim}", rs), NO_GOOD),
        "claims that are no UTF-8": (raw(HEADER, b'{"sub": "\xff"}', rs), NO_GOOD),
        # signatures
        "wrong key": (raw(HEADER, GOOD, other), NO_GOOD),
        "no signature": (head + b"." + body + b".", NO_GOOD),
        "another token's signature": (
            b".".join((*claims(sub="eve").split(b".")[:2], tail)),
            NO_GOOD,
        ),
        "a signature written in another way": (good[:-1] + b"-", NO_GOOD),
        "a padded signature": (good + b"==", NO_GOOD),
        "a signature of zeros": (raw(HEADER, GOOD, lambda signed: bytes(256)), NO_GOOD),
        # algorithms
        "none": (raw({"alg": "none"}, GOOD, lambda signed: b""), NO_GOOD),
        "None": (raw({"alg": "None", "typ": "JWT"}, GOOD, lambda signed: b""), NO_GOOD),
        "nOnE with a signature": (raw({"alg": "nOnE"}, GOOD, rs), NO_GOOD),
        "no algorithm": (header(alg=None), NO_GOOD),
        "an algorithm that is an array": (header(alg=["RS256"]), NO_GOOD),
        "small letters": (header(alg="rs256"), NO_GOOD),
        "HS256 by the public key": (
            raw(HEADER | {"alg": "HS256"}, GOOD, hs(kit.pem("RS256"))),
            NO_GOOD,
        ),
        "HS256 by the public key, stripped": (
            raw(HEADER | {"alg": "HS256"}, GOOD, hs(kit.pem("RS256").strip())),
            NO_GOOD,
        ),
        "HS256 by the modulus": (
            raw(HEADER | {"alg": "HS256"}, GOOD, hs(kit.jwk("RS256")["n"].encode())),
            NO_GOOD,
        ),
        "HS256 by nothing": (raw(HEADER | {"alg": "HS256"}, GOOD, hs(b"")), NO_GOOD),
        "RS512 where RS256 is allowed": (header(alg="RS512"), NO_GOOD),
        # headers
        "another kid": (header(kid="two"), NO_GOOD),
        "kid traversal": (header(kid="../../../../dev/null"), NO_GOOD),
        "kid injection": (header(kid="one' OR '1'='1"), NO_GOOD),
        "kid with a zero byte": (header(kid="one\0"), NO_GOOD),
        "kid that is a number": (header(kid=1), NO_GOOD),
        "a long kid": (header(kid="k" * 1000), NO_GOOD),
        "a key in the header": (
            raw(
                {k: v for k, v in HEADER.items() if k != "kid"}
                | {"jwk": {"kty": "oct", "k": "AA"}},
                GOOD,
                other,
            ),
            NO_GOOD,
        ),
        "a key elsewhere": (header(jku="https://evil.example/keys", kid="two"), NO_GOOD),
        "extensions": (header(crit=["exp"]), NO_GOOD),
        "an unencoded body": (header(b64=False, crit=["b64"]), NO_GOOD),
        "another type": (header(typ="dpop+jwt"), NO_GOOD),
        "algorithm twice": (
            raw(b'{"alg":"none","alg":"RS256","kid":"one"}', GOOD, rs),
            NO_GOOD,
        ),
        "a header that is no object": (raw(["RS256"], GOOD, rs), NO_GOOD),
        "a deep header": (raw(b'{"a":' * 1000, GOOD, rs), NO_GOOD),
        # form
        "truncated": (good[:-20], NO_GOOD),
        "truncated in the claims": (good[: len(head) + 10], NO_GOOD),
        "two parts": (head + b"." + body, NO_GOOD),
        "four parts": (good + b".AA", NO_GOOD),
        "five parts, as encrypted ones have": (good + b".AA.AA", NO_GOOD),
        "a space before": (b" " + good, NO_GOOD),
        "a line end behind": (good + b"\n", NO_GOOD),
        "other letters": (good.replace(b"e", "е".encode(), 1), NO_GOOD),
        "wide letters": (good.replace(b".", "．".encode()), NO_GOOD),
        "plus and slash": (head + b"." + body + b"." + tail[:-2] + b"+/", NO_GOOD),
        "the largest password": (good + b"A" * (65_535 - len(good)), NO_GOOD),
        "the largest password, in its form": (
            head + b"." + b"A" * (65_535 - len(head) - len(tail) - 2) + b"." + tail,
            NO_GOOD,
        ),
        "empty parts": (b"..", NO_GOOD),
        "bytes": (bytes(range(256)), NO_GOOD),
    }


#: Why -> what is refused for it: each for its own fault, and for no other.
WHY: dict[str, tuple[str, ...]] = {
    "the token has expired": (
        "expired",
        "expired long ago",
    ),
    "the token is not good yet": (
        "not yet valid",
        "made in the future",
    ),
    "the claim exp is missing": ("without an end",),
    "the claim exp is no number": (
        "an end that is text",
        "an end that is true",
        "an end that is an object",
    ),
    "the claim exp is no moment": (
        "an end after the end",
        "an infinite end",
        "a negative end",
    ),
    "claims: JSON has no NaN and no infinity": ("an end of infinity",),
    "claims: a number of this JSON has too many digits": ("an end of many digits",),
    "the issuer is another one": (
        "another issuer",
        "an issuer with a slash more",
        "an issuer in an array",
        "no issuer",
    ),
    "the token is for somebody else": (
        "another audience",
        "other audiences",
        "an audience that is an object",
        "no audience",
    ),
    "the claim sub is missing, or is no username": (
        "no subject",
        "an empty subject",
        "a subject that is an array",
        "a subject with a zero byte",
        "a subject with half a character",
        "a subject that turns its text around",
        "a subject of two lines",
    ),
    "the claim jti is no text": ("a jti that is a number",),
    "claims: a name stands twice in this JSON": ("subject twice",),
    "the claims are no object": ("claims that are no object",),
    "claims: this is not JSON": ("claims that are no JSON",),
    "claims: this is not UTF-8": ("claims that are no UTF-8",),
    "the signature is wrong": (
        "wrong key",
        "no signature",
        "another token's signature",
        "a signature of zeros",
        "a key in the header",
    ),
    "this is no token": (
        "a signature written in another way",
        "a padded signature",
        "algorithm twice",
        "a deep header",
        "truncated",
        "truncated in the claims",
        "two parts",
        "four parts",
        "five parts, as encrypted ones have",
        "a space before",
        "a line end behind",
        "other letters",
        "wide letters",
        "plus and slash",
        "empty parts",
        "bytes",
    ),
    "the algorithm is not allowed": (
        "none",
        "None",
        "nOnE with a signature",
        "no algorithm",
        "an algorithm that is an array",
        "small letters",
        "HS256 by the public key",
        "HS256 by the public key, stripped",
        "HS256 by the modulus",
        "HS256 by nothing",
        "RS512 where RS256 is allowed",
    ),
    "no key of this name and algorithm is known": (
        "another kid",
        "kid traversal",
        "kid injection",
        "kid with a zero byte",
        "a key elsewhere",
    ),
    "the key's name can't be": (
        "kid that is a number",
        "a long kid",
    ),
    "the header asks for extensions": (
        "extensions",
        "an unencoded body",
    ),
    "this type of token is not allowed": ("another type",),
    "the header is no object": ("a header that is no object",),
    "the token is too large": (
        "the largest password",
        "the largest password, in its form",
    ),
}


async def test_every_hostile_token(folder: Path, kit: Kit, caplog: Any) -> None:
    path = folder / "keys.json"
    path.write_bytes(kit.key_set("RS256", kid="one"))
    settings = JwtSettings(
        algorithms=("RS256",),
        jwks_file=path,
        issuer="https://id.example",
        audience=("mqtt",),
        client_id="{sub}",
        permissions=False,
    )

    def rs(signed: bytes) -> bytes:
        data: bytes = kit.private["RS256"].sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return data

    good = raw(HEADER, GOOD, rs)
    recorder = HookRecorder("plugin_failed", "connection_refused")
    plugins = [Jwt(settings, name="jwt"), recorder]
    cases = hostile(kit)
    why = {what: text for text, whats in WHY.items() for what in whats}
    assert set(why) == set(cases)
    async with open_harness(plugins=plugins) as harness:
        victim = await harness.client("victim", password=good, session_expiry_interval=3600)
        await victim.subscribe("inbox", qos=1)
        before = harness.broker.sessions()
        for what, (token, code) in cases.items():
            refused = await harness.refused("victim", password=token)
            assert refused.reason_code == code, what
            if len(token) < 60_000:
                refused = await harness.refused(
                    "victim", authentication_method="jwt", authentication_data=token
                )
                assert refused.reason_code == 0x87, what
            # (What has no likeness to a token is refused as a password before it is looked at.)
            assert recorder.of("connection_refused")[-1].why == why[what], what
        assert harness.broker.sessions() == before
        await victim.ping()
        await harness.broker.publish("inbox", b"still there", qos=1)
        assert (await victim.wait_for("inbox")).payload == b"still there"
        # Who is somebody else is refused for the name.
        eve = raw(HEADER, GOOD | {"sub": "eve"}, rs)
        assert (await harness.refused("victim", password=eve)).reason_code == 0x85
    assert recorder.of("plugin_failed") == []
    for event in recorder.of("connection_refused"):
        assert "eyJ" not in event.why
    assert "eyJ" not in caplog.text


async def test_a_megabyte_is_refused_before_it_is_read(make: Any, kit: Kit) -> None:
    """By WebSocket a token may be of any size; by MQTT it has 65,535 bytes at most."""

    def never(algorithm: str, kid: str | None) -> None:
        raise AssertionError("no key is looked for")

    judge = Judge(make().settings, never)
    with pytest.raises(RefusedToken, match="too large"):
        judge.claims(b"eyJ" + b"x" * 1024 * 1024, NOW)


async def test_a_secret_is_for_hs_only(folder: Path, kit: Kit) -> None:
    """Both kinds in one list: a public key is no secret, and a secret no public key."""
    settings = JwtSettings(
        algorithms=("HS256", "RS256"), secret=SECRET, public_keys=(folder / "RS256.pem",)
    )
    async with open_harness(plugins=[Jwt(settings, name="jwt")]) as harness:
        for algorithm in ("HS256", "RS256"):
            await harness.client(algorithm, password=kit.token(algorithm))
        forged = raw({"alg": "HS256"}, GOOD, hs(kit.pem("RS256")))
        assert (await harness.refused("eve", password=forged)).reason_code == NO_GOOD


async def test_methods_of_others_are_left_to_them(make: Any) -> None:
    other = HookRecorder(
        answers={"authenticate": lambda event: Deny(0x8A) if event.method == "x" else None}
    )
    async with open_harness(plugins=[make(), other]) as harness:
        refused = await harness.refused("a", authentication_method="x", authentication_data=b"eyJ")
        assert refused.reason_code == 0x8A


@pytest.mark.parametrize(("others", "code"), [("deny", 0x86), ("pass", 0)])
async def test_passwords_of_others(make: Any, others: str, code: int) -> None:
    behind = HookRecorder(answers={"authenticate": lambda event: Allow()})
    async with open_harness(plugins=[make(others=others), behind]) as harness:
        client = harness.new_client("a")
        connack = await client.try_connect(username="bob", password=b"a password")
        assert connack.reason_code == code
