from __future__ import annotations

import hashlib
import socket
import ssl
import stat
from types import SimpleNamespace

import psutil
import pytest
from cryptography import x509

from vitrail.core.errors import ConfigError
from vitrail.serve.browser import BrowserConfig
from vitrail.serve.browser.address import link, local_addresses, qr_code
from vitrail.serve.browser.certificate import make_certificate


def test_the_network_that_phones_are_in_comes_first(monkeypatch):
    def at(address, family=socket.AF_INET):
        return SimpleNamespace(family=family, address=address)

    monkeypatch.setattr(
        psutil,
        "net_if_addrs",
        lambda: {
            "lo": [at("127.0.0.1")],
            "docker0": [at("172.17.0.1")],
            "usb0": [at("169.254.3.4")],
            "wlan0": [at("192.168.1.5"), at("fe80::1", socket.AF_INET6)],
        },
    )
    assert local_addresses() == ["192.168.1.5", "169.254.3.4", "172.17.0.1"]


def test_the_invitation_is_where_browsers_do_not_send_it():
    assert link("https", "192.168.1.5", 8765, "abc") == "https://192.168.1.5:8765/#abc"
    assert link("http", "::1", 80, "abc") == "http://[::1]:80/#abc"


def test_the_code_fits_a_terminal():
    code = qr_code("https://192.168.100.200:8765/#" + "A" * 24)
    lines = code.splitlines()
    assert len(lines) <= 24
    assert set("".join(lines)) <= set("▀▄█ ")


def test_the_certificate_is_for_these_addresses_and_its_key_is_private(tmp_path):
    made = make_certificate(tmp_path, ["192.168.1.5", "::1"])
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["192.168.1.5", "::1"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    der = ssl.PEM_cert_to_DER_cert(made.certificate.read_text())
    assert made.fingerprint.replace(":", "").lower() == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"host": "example.org"}, "0.0.0.0"),
        ({"port": 70000}, "65535"),
        ({"wasm_threads": ()}, "from 1 to 64"),
        ({"wasm_threads": (0,)}, "from 1 to 64"),
        ({"num_devices": -1}, "Ctrl-C"),
        ({"max_devices": 0}, "from 1"),
    ],
)
def test_wrong_settings_are_refused(values, reason):
    with pytest.raises(ConfigError, match=reason):
        BrowserConfig(**values)


@pytest.mark.parametrize(
    ("values", "tls"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "0.0.0.0", "plain_http": True}, False),
    ],
)
def test_tls_wherever_browsers_want_it(values, tls):
    assert BrowserConfig(**values).uses_tls is tls
