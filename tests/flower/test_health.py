"""Which SuperLink a server takes for its own, and what nodes are told of one that they cannot reach."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import threading

import pytest

from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.runtime.flower.certificates import make_certificates
from fedrax.runtime.flower.endpoint import Endpoint
from fedrax.runtime.flower.health import await_health, check_free, obstacle
from fedrax.runtime.flower.identity import BYTES, SECRET, Proving, proof, proving
from fedrax.runtime.flower.processes import free_port, guarded_command, patched_command

from harness import superlink

OWN, FOREIGN = "11" * BYTES, "22" * BYTES


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation") / "certificates"
    make_certificates(folder, ["127.0.0.1"], 1)
    return folder


def test_a_proof_is_hmac_sha256():
    # RFC 4231, test case 2.
    known = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert proof("Jefe", "what do ya want for nothing?") == known


def test_an_answer_to_a_nonce_proves_the_secret_and_does_not_tell_it(monkeypatch):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    def answer(*headers):
        answers = []

        async def send(message):
            answers.append(message)

        asyncio.run(Proving(app, secret=OWN)({"type": "http", "headers": headers}, None, send))
        return answers[0]["headers"]

    assert answer() == [(b"a", b"b")]
    assert answer((b"x-nonce", b"07")) == [(b"a", b"b"), (b"x-proof", proof(OWN, "07").encode())]
    assert OWN.encode() not in repr(answer((b"x-nonce", OWN.encode()))).encode()


def test_a_superlinks_secret_leaves_its_environment(monkeypatch):
    monkeypatch.setenv(SECRET, OWN)
    assert proving()(None).secret == OWN
    assert SECRET not in os.environ
    # Started without one, by hand, it proves what nobody knows.
    assert len(proving()(None).secret) == 2 * BYTES
    assert proving()(None).secret != proving()(None).secret


def test_certificates_pass_the_strict_checks_that_later_pythons_make(certificates):
    """Of RFC 5280, by default from Python 3.13 on: in memory, each side's bytes are the other's."""
    here = ssl.create_default_context(cafile=certificates / "authority.crt")
    here.verify_flags |= ssl.VERIFY_X509_STRICT
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = here.wrap_bio(down, up, server_hostname="127.0.0.1")
    server = there.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert client.getpeercert()["subjectAltName"] == (("IP Address", "127.0.0.1"),)


@pytest.mark.parametrize("secure", [False, True])
def test_a_server_takes_its_own_superlink(certificates, secure):
    with superlink(OWN, certificates if secure else None) as address:
        await_health(address, certificates / "authority.crt" if secure else None, 10, OWN)


@pytest.mark.parametrize(
    ("secret", "why"),
    [(None, "takes runs from everyone who reaches it"), (FOREIGN, "is another server's: it does not know this one's")],
)
def test_a_server_takes_no_other_superlink(secret, why):
    with superlink(secret) as address, pytest.raises(FedraxError, match=why):
        await_health(address, None, 10, OWN)


def test_a_superlink_that_never_answers_well_is_waited_for_and_given_up(certificates):
    with superlink(OWN, status=503) as address, pytest.raises(FedraxError, match="no SuperLink answers at"):
        await_health(address, None, 0.1, OWN)
    with superlink(OWN) as address, pytest.raises(FedraxError, match=r"answers at .*WRONG_VERSION_NUMBER"):
        await_health(address, certificates / "authority.crt", 0.1, OWN)


@pytest.mark.parametrize("command", [guarded_command("superlink"), patched_command("superlink")], ids=["stock", "fast"])
def test_flowers_own_superlink_proves_the_secret_it_was_given(command, tmp_path):
    """Both of the commands that servers start."""
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--isolation", "process", "--insecure"]
    variables = {**os.environ, SECRET: OWN, "FLWR_HOME": str(tmp_path), "FLWR_TELEMETRY_ENABLED": "0"}
    with (
        open(tmp_path / "log", "wb") as log,
        subprocess.Popen([*command, *options], env=variables, stdout=log, stderr=log) as process,
    ):
        try:
            await_health(f"127.0.0.1:{port}", None, 60, OWN)
            with pytest.raises(FedraxError, match="is another server's"):
                await_health(f"127.0.0.1:{port}", None, 60, FOREIGN)
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_that_somebody_listens_on_is_refused_in_one_line(host, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("fedrax.runtime.flower.health.FREE_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(FedraxError, match=f"port {port} of {host} is in use"):
            check_free(f"{host}:{port}")
        if host != "0.0.0.0":
            assert main(["server", "fedpg-br/cartpole", "--superlink", f"{host}:{port}"]) == 1
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert f"choose another port with --superlink {host}:PORT" in error
    assert not list(tmp_path.iterdir())
    check_free(f"{host}:{port}")


def test_a_server_waits_a_moment_for_a_port_that_is_being_left():
    other = socket.create_server(("127.0.0.1", 0))
    threading.Timer(0.3, other.close).start()
    check_free(f"127.0.0.1:{other.getsockname()[1]}")


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(FedraxError, match=r"cannot listen at 192\.0\.2\.1:9092: .*give --superlink an address of this"):
        check_free("192.0.2.1:9092")


def test_nothing_hinders_a_node_at_its_superlink(certificates):
    with superlink(OWN) as address:
        assert obstacle(Endpoint(address, None)) is None
    with superlink(OWN, certificates) as address:
        assert obstacle(Endpoint(address, certificates)) is None


def test_what_hinders_a_node_is_told(certificates, tmp_path):
    make_certificates(tmp_path / "others", ["127.0.0.1"], 1)
    make_certificates(tmp_path / "elsewhere", ["10.0.0.1"], 1)
    port = free_port()
    assert obstacle(Endpoint(f"127.0.0.1:{port}", None)) == f"nobody listens at 127.0.0.1:{port}"
    with superlink(OWN, certificates) as address:
        assert "asks for TLS: give --certificates and --key" in obstacle(Endpoint(address, None))
        other = obstacle(Endpoint(address, tmp_path / "others"))
        assert f"the certificate of the SuperLink at {address} is refused (unable to get local issuer" in other
    with superlink(OWN, tmp_path / "elsewhere") as address:
        assert "IP address mismatch" in obstacle(Endpoint(address, tmp_path / "elsewhere"))
    with superlink(OWN) as address:
        assert "does not speak TLS (WRONG_VERSION_NUMBER)" in obstacle(Endpoint(address, certificates))
    with superlink(status=404) as address:
        assert obstacle(Endpoint(address, None)) == f"what answers at {address} is not a SuperLink"
    (tmp_path / "authority.crt").write_text("nothing")
    with superlink(OWN, certificates) as address, pytest.raises(FedraxError, match="is not an authority's certificate"):
        obstacle(Endpoint(address, tmp_path))


def test_a_node_is_told_of_a_name_that_nobody_knows(monkeypatch):
    def unknown(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    assert "cannot be reached (Name or service not known)" in obstacle(Endpoint("server.invalid:1", None))
