"""The meter ``http`` against real servers: what they may answer, and what a person is shown."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.wall_meter import Answers, Device, Load, as_json, serving, shelly, tasmota
from wattbench.remote_meters import Access, reader_of
from wattbench.remote_meters.http import HttpSettings
from wattbench.remote_meters.protocol import Reader, RemoteMeterError

STEADY = Device(Load(((0.0, 120.0),)))


@contextmanager
def reading(answers: Answers, access: Access | None = None, **keys: Any) -> Iterator[Reader]:
    with serving(answers) as url:
        given = {"power": {"path": "w"}, "name": "plug"} | keys
        given["url"] = url + given.pop("path", "/")
        reader = reader_of(HttpSettings.model_validate(given), access)
        yield reader
        reader.client.close()


def one(value: Any) -> Answers:
    return Answers({"/": lambda _: as_json(value)})


def text(body: bytes, status: int = 200, kind: str = "text/html") -> Answers:
    return Answers({"/": lambda _: (status, kind, body)})


def refusal(answers: Answers, access: Access | None = None, **keys: Any) -> str:
    with reading(answers, access, **keys) as reader:
        with pytest.raises(RemoteMeterError) as caught:
            reader.probe()
        return reader.explained(caught.value)


def test_a_shelly_plug_gives_watts_and_watt_hours() -> None:
    with reading(
        shelly(STEADY), path="/rpc/Switch.GetStatus?id=0", power={"path": "apower"},
        energy={"path": "aenergy.total", "unit": "Wh"},
    ) as reader:  # fmt: skip
        before, sample, after = time.time(), reader.sample(), time.time()
    assert before <= sample.unix_s <= after
    assert float(sample.power or 0) == pytest.approx(120.0)
    assert before * 120 - 1 <= float(sample.energy or 0) * 3600 <= after * 120 + 1


def test_a_tasmota_plug_gives_watts_and_kilowatt_hours_of_three_digits() -> None:
    with reading(
        tasmota(STEADY), path="/cm?cmnd=Status%208", power={"path": "StatusSNS.ENERGY.Power"},
        energy={"path": "StatusSNS.ENERGY.Total", "unit": "kWh"},
    ) as reader:  # fmt: skip
        sample = reader.sample()
    assert sample.power == "120"
    assert re.fullmatch(r"\d+(\.\d{1,3})?", sample.energy or "")


def test_a_number_keeps_the_digits_that_the_meter_prints() -> None:
    body = b'{"emeters": [{"total": 18446744073709551615}, {"total": "7.500"}]}'
    for index, expected in enumerate(("18446744073709551615", "7.500")):
        energy = {"path": f"emeters.{index}.total", "unit": "uJ"}
        with reading(text(body), power=None, energy=energy) as reader:
            assert reader.sample().energy == expected


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (text(b"<!doctype html><title>Login</title>"), "answers a web page (HTML), not JSON; give"),
        (text(b"power: 12", kind="text/plain"), "answers no JSON (power: 12); correct its url"),
        (text(b""), "answers no JSON; correct its url"),
        (text(b"[" * 100_000), "answers no JSON"),
        (one({"w": 0}), "gives w as 0; is it the meter of this host"),
        (one({"w": 0.0}), "gives w as 0"),
        (text(b'{"w": NaN}'), "gives w as NaN; look at the meter"),
        (text(b'{"w": Infinity}'), "gives w as Infinity"),
        (one({"w": "nan"}), "gives w as NaN"),
        (one({"w": -4.2}), "gives w as -4.2, less than 0"),
        (one({"w": True}), "gives w as 'True', not a number"),
        (one({"w": None}), "gives w as 'None', not a number"),
        (one({"w": "on"}), "gives w as 'on', not a number"),
        (one({"power": 3, "volts": 230}), "answers without w; there is power, volts; correct"),
        (one([1, 2]), "answers without w; correct the path"),
        (text(b"oops", 500), "answers 500 Internal Server Error (oops); correct"),
        (text(b"", 404), "answers 404 Not Found; correct its url"),
    ],
)
def test_what_is_not_a_reading_is_one_line_with_the_next_action(answers: Answers, why: str) -> None:
    shown = refusal(answers)
    assert shown.startswith("http meter plug " + why), shown
    assert "\n" not in shown
    assert ";" in shown


def test_a_reading_of_yesterday_is_refused_and_one_of_now_taken() -> None:
    for stamp, why in (
        (lambda: time.time() - 86_400, "gives a reading that is 86400 s old (t); check"),
        (lambda: time.time() + 7200, "s in the future (t)"),
        (lambda: "2026-01-01T12:00:00", "neither Unix seconds nor ISO 8601 with a time zone"),
        (lambda: "2020-01-01T12:00:00+00:00", "s old (t)"),
    ):
        answers = Answers({"/": lambda _, t=stamp: as_json({"w": 3, "t": t()})})
        assert why in refusal(answers, time="t")
    answers = Answers({"/": lambda _: as_json({"w": 3, "t": time.time()})})
    with reading(answers, time="t") as reader:
        assert reader.sample().power == "3"


def test_a_meter_that_needs_a_login_says_where_to_put_it_and_one_that_refuses_it_so() -> None:
    locked = Answers(one({"w": 3}).by_path, authorized=lambda login: login == "Basic dTpzM2NyZXQ=")
    assert refusal(locked) == (
        "http meter plug answers 401 Unauthorized: it needs a login; put it into an Airflow connection and "
        "name that as conn_id"
    )
    wrong = Access(username="u", password="another")
    assert "it refuses the login of its connection; correct it" in refusal(locked, wrong)
    with reading(locked, Access(username="u", password="s3cret")) as reader:
        assert reader.sample().power == "3"


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_digest_logins_of_plugs_are_answered(algorithm: str) -> None:
    answers = one({"w": 3})
    answers.authorized = lambda login: (login or "").startswith('Digest username="u"')
    answers.headers["WWW-Authenticate"] = (
        f'Digest realm="plug", nonce="60", qop="auth", algorithm={algorithm}'
    )
    with reading(answers, Access("digest", "u", "s3cret")) as reader:
        assert reader.sample().power == "3"
    assert "s3cret" not in str(answers.asked)


def test_tokens_and_logins_in_the_query_are_sent_and_never_shown() -> None:
    answers = one({"w": 3})
    with reading(answers, Access("bearer", None, "t0ken")) as reader:
        reader.probe()
    with reading(answers, Access("query", "admin", "p&ss w")) as reader:
        reader.probe()
    assert answers.asked == [
        ("/", "Bearer t0ken"), ("/?user=admin&password=p%26ss+w", None),
    ]  # fmt: skip
    for access in (Access("query", "admin", "p&ss w"), Access("bearer", None, "p&ss w")):
        assert "p&ss w" not in repr(access)
    echo = Answers(
        {"/": lambda query: (500, "text/plain", f"bad {query.get('password')} p%26ss+w".encode())}
    )
    shown = refusal(echo, Access("query", "admin", "p&ss w"))
    assert "answers 500 Internal Server Error (bad *** ***)" in shown


def test_a_redirect_is_reported_and_not_followed() -> None:
    answers = text(b"", 301)
    answers.headers["Location"] = "https://plug.example/secret?token=x"
    shown = refusal(answers)
    assert shown.endswith("it sends on to https://plug.example; give that address as url")
    assert len(answers.asked) == 1


def test_a_meter_that_is_not_there_is_reported_with_what_to_check() -> None:
    settings = {"url": "http://127.0.0.1:1/", "power": {"path": "w"}, "name": "plug"}
    reader = reader_of(HttpSettings.model_validate(settings))
    with pytest.raises(RemoteMeterError, match="can't be reached or hangs up; check its address"):
        reader.probe()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A context of TLS with a certificate of 127.0.0.1 that only its own file vouches for, and that file."""
    import datetime
    import ipaddress
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "plug")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tls")
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context, str(folder / "ca.pem")


def asked_over_tls(url: str, access: Access) -> str:
    settings = {"url": url, "power": {"path": "w"}, "name": "plug"}
    reader = reader_of(HttpSettings.model_validate(settings), access)
    try:
        return str(reader.sample().power)
    except RemoteMeterError as error:
        return str(error)
    finally:
        reader.client.close()


def test_tls_is_verified_and_what_it_lacks_is_reported(certificate: Any) -> None:
    context, ca_file = certificate
    with serving(one({"w": 3}), context) as url:
        assert asked_over_tls(url, Access(ca_file=ca_file)) == "3"
        assert "can't be verified; name its certificate as ca_file" in asked_over_tls(url, Access())
        plain = asked_over_tls(url.replace("https:", "http:"), Access())
        assert "if it needs TLS, give its url with https://" in plain
    with serving(one({"w": 3})) as url:
        shown = asked_over_tls(url.replace("http:", "https:"), Access())
        assert shown == "speaks no TLS there; give its url with http://"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"url": "http://u:p@plug/"}, "the URL holds a login"),
        ({"url": "http://plug/cm?user=a&password=b"}, "the URL holds a login"),
        ({"url": "ftp://plug/"}, "String should match pattern"),
        ({"url": "plug/data"}, "url names no host"),
        ({"power": None}, "neither power nor energy is given"),
        ({"power": {"path": "a..b"}}, "String should match pattern"),
        ({"energy": {"path": "a"}}, "Field required"),
        ({"energy": {"path": "a", "unit": "BTU"}}, "Input should be 'J'"),
    ],
)
def test_settings_that_can_t_be_read_are_refused(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        HttpSettings.model_validate({"url": "http://plug/", "power": {"path": "w"}} | keys)


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattbench.remote_meters.client.LARGEST_BYTES", 1000)
    make: Callable[[dict[str, str]], tuple[int, str, bytes]] = lambda _: (200, "x/y", b"1" * 99_999)  # noqa: E731
    assert "can't be read: its answer has no end" in refusal(Answers({"/": make}))
