"""A certificate made on the fly: browsers give threads and WebGPU only to pages that come over TLS.

Nobody vouches for it, so that browsers warn once; its fingerprint on the terminal is what a careful user compares.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VALID_DAYS = 7
"""A server rarely runs longer, and a key that leaks from a crashed one is soon worthless."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Files for an HTTPS server.

    Attributes:
        certificate, key: PEM; the key can be read by its owner alone.
        fingerprint: SHA-256, as browsers show it.
    """

    certificate: Path
    key: Path
    fingerprint: str


def make_certificate(folder: Path, addresses: Sequence[str]) -> Certificate:
    """A self-signed certificate for IP addresses and localhost, written to ``folder``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vitrail bench")])
    names = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # phones' clocks are not always right
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(
        certificate=folder / "certificate.pem",
        key=folder / "key.pem",
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(os.open(made.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    return made
