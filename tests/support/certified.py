"""Certificates of our own, as a mounted Secret has them."""

import os
import ssl
import subprocess
from hashlib import sha256
from pathlib import Path


def certified(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and that name, and its key, as a mounted Secret has them; written anew where they are."""
    folder.mkdir(exist_ok=True)
    files = folder / "tls.crt", folder / "tls.key"
    fresh = folder / "new.crt", folder / "new.key"
    line = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    line += [
        "-subj",
        f"/CN={name}",
        "-addext",
        f"subjectAltName=IP:127.0.0.1,DNS:{name}",
        "-out",
        str(fresh[0]),
        "-keyout",
        str(fresh[1]),
    ]
    subprocess.run(line, check=True, capture_output=True)
    for new, old in zip(fresh, files, strict=True):
        os.replace(new, old)
    return files


def fingerprint(certificate: Path) -> str:
    """That of a certificate's file."""
    return sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
