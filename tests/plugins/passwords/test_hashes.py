"""Each kind of hash: what others have made is understood, what can't be is refused without a word
of it."""

import sys

import pytest

from mqtrio_plugins.passwords.hashes import Argon2id, Pbkdf2, Scrypt, Sha512, kind_of, parse

#: Made by mosquitto_passwd 2.0.11, and by argon2-cffi 25.1.
KNOWN = {
    "sha512": (
        "old password",
        "$6$FM/Pw9YB50sr9j0d$yTptnezo26a3Q6RS9VaWa+jTwHGcEpq8IKT2tn4mxVlVNBQyKm1/FFRqpIwmaWGQtl0u"
        "lsdKU1cUQfcBQI2Y2Q==",
    ),
    "pbkdf2": (
        "new password",
        "$7$101$hVHR+egu1rO7vrm0$MKYtyETWj4mVbXGRaLE6HCll2O38qfBvjVZfyaajIPFZA4ysbIHku7vlyWSSbWEM"
        "8vKHv7kAQayPixXOT0Wwdw==",
    ),
    "argon2id": (
        "newest password",
        "$argon2id$v=19$m=1024,t=1,p=1$YBMcoFNxUwshP/b0vt9fyg$yfuUyjW5tKAtzD7SqWHoGlL56rAuJS6xRjj"
        "Vl8D0l9k",
    ),
}
ALL = pytest.mark.parametrize("kind", list(KNOWN))


#: RFC 7914, section 12, the third vector.
RFC_7914 = bytes.fromhex(
    "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a"
    "9af9e61e85dc0d651e40dfcf017b45575887"
)


def test_the_vector_of_the_rfc() -> None:
    kept = Scrypt(14, 8, 1, b"SodiumChloride", RFC_7914)
    assert kept.verify(b"pleaseletmein")
    assert parse(str(kept)) == kept


@ALL
def test_hashes_of_others(kind: str) -> None:
    password, text = KNOWN[kind]
    kept = parse(text)
    assert kind_of(kept) == kind
    assert kept.verify(password.encode())
    for wrong in (b"", b"x", password.encode() + b" ", password.encode()[:-1]):
        assert not kept.verify(wrong)


def test_hashes_of_ours() -> None:
    kept = Scrypt.of("grün".encode(), ln=4)
    again = parse(str(kept))
    assert again == kept
    assert again.verify("grün".encode())
    assert not again.verify(b"green")
    assert Scrypt.of("grün".encode(), ln=4) != kept  # another salt


@ALL
def test_no_password_fits_a_decoy(kind: str) -> None:
    password, text = KNOWN[kind]
    kept = parse(text)
    decoy = kept.decoy(b"seed")
    assert not decoy.verify(password.encode())
    assert decoy == kept.decoy(b"seed")
    assert decoy != kept.decoy(b"another seed")
    assert _cost(decoy) == _cost(kept)


def test_no_password_fits_a_decoy_of_ours() -> None:
    kept = Scrypt.of(b"x", ln=3)
    assert not kept.decoy(b"seed").verify(b"x")
    assert _cost(kept.decoy(b"seed")) == _cost(kept)


def _cost(kept: object) -> object:
    """What checking it takes."""
    match kept:
        case Scrypt():
            return kept.ln, kept.r, kept.p, kept.salt, len(kept.digest)
        case Pbkdf2():
            return kept.iterations, kept.salt, len(kept.digest)
        case Sha512():
            return kept.salt, len(kept.digest)
        case Argon2id():
            return kept.text.rpartition("$")[0]
    raise AssertionError(kept)


SECRET = "c2VjcmV0"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (SECRET, "no password hash that is known"),
        ("", "no password hash that is known"),
        (f"$5${SECRET}${SECRET}", "no password hash that is known"),
        (f"6${SECRET}${SECRET}", "no password hash that is known"),
        (f"$6${SECRET}", "has the form"),
        (f"$6${SECRET}${SECRET}", "right length"),
        (f"$6$!{SECRET}${SECRET}", "base64"),
        (f"$7${SECRET}${SECRET}", "has the form"),
        (f"$7$0${SECRET}${SECRET}", "iterations"),
        (f"$7$99999999${SECRET}${SECRET}", "iterations"),
        (f"$7$101${SECRET}${SECRET}", "right length"),
        (f"$scrypt$ln=14,r=8${SECRET}${SECRET}", "has the form"),
        (f"$scrypt$ln=21,r=8,p=1${SECRET}${SECRET}", "out of range"),
        (f"$scrypt$ln=20,r=9,p=1${SECRET}${SECRET}", "out of range"),
        (f"$scrypt$ln=0,r=8,p=1${SECRET}${SECRET}", "out of range"),
        (f"$scrypt$ln=4,r=8,p=0${SECRET}${SECRET}", "out of range"),
        (f"$scrypt$ln=4,r=8,p=1${SECRET}!${SECRET}", "base64"),
        (f"$argon2id$v=19$m=1024${SECRET}${SECRET}", "can't be read"),
        (f"$argon2id$v=19$m=1048577,t=1,p=1${SECRET}${SECRET}", "more memory"),
    ],
)
def test_what_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse(text)
    assert SECRET not in str(caught.value)


def test_the_largest_that_is_allowed_can_be_read() -> None:
    assert kind_of(parse(f"$scrypt$ln=20,r=8,p=1${SECRET}${SECRET}")) == "scrypt"


def test_without_argon2_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)
    with pytest.raises(ValueError, match=r"pip install 'mqtrio\[argon2\]'"):
        parse(KNOWN["argon2id"][1])


@ALL
def test_nothing_shows_a_hash(kind: str) -> None:
    text = KNOWN[kind][1]
    assert not [part for part in text.split("$")[-2:] if part in repr(parse(text))]
    assert "digest=" not in repr(Scrypt.of(b"x", ln=1))
