"""Certificates made for one test: an authority, and leaves that it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dray.tls import TlsFiles

LIFETIME: Final = datetime.timedelta(hours=1)


class Authority:
    """A certificate authority that writes its files into one folder."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = self._builder(self._name, self._key).add_extension(constraints, critical=True)
        self.ca = folder / "ca.pem"
        self._write(self.ca, builder.sign(self._key, hashes.SHA256()))

    def issue(self, name: str, *, age: datetime.timedelta = datetime.timedelta(0)) -> TlsFiles:
        """Write a certificate for 127.0.0.1 and `localhost`, made `age` ago, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        )
        builder = self._builder(subject, key, age).add_extension(names, critical=False)
        files = TlsFiles(self.folder / f"{name}.pem", self.folder / f"{name}.key", self.ca)
        self._write(files.cert, builder.sign(self._key, hashes.SHA256()))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        age: datetime.timedelta = datetime.timedelta(0),
    ) -> x509.CertificateBuilder:
        start = datetime.datetime.now(datetime.UTC) - age - datetime.timedelta(minutes=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + LIFETIME)
        )

    @staticmethod
    def _write(path: Path, certificate: x509.Certificate) -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
