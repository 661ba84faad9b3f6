from __future__ import annotations

import base64
import hashlib
import io
import stat
import tarfile

import pytest

from vitrail.core.errors import BenchError
from vitrail.serve.browser import assets, fetch
from vitrail.serve.browser.assets import FILES, fetch_assets, find_assets


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """An ``npm`` that packs an archive of small files, to which the pins are set."""
    contents = {name: f"contents of {name}".encode() for name in FILES}
    archive = tmp_path / "registry.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in {**contents, "ort.all.js": b"not wanted"}.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        "#!/bin/sh\n"
        '[ "$1" = pack ] && [ "$2" = "onnxruntime-web@1.30.0" ] && [ "$5" = --pack-destination ] || exit 9\n'
        f'[ -e "{archive}" ] || {{ echo "npm error network is down" >&2; exit 1; }}\n'
        f'cp "{archive}" "$6/onnxruntime-web-1.30.0.tgz"\n'
    )
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "asset_folders", lambda: (tmp_path / "inside", tmp_path / "cache" / "ort"))
    digest = hashlib.sha512(archive.read_bytes()).digest()
    monkeypatch.setattr(assets, "INTEGRITY", "sha512-" + base64.b64encode(digest).decode())
    monkeypatch.setattr(assets, "FILES", {n: hashlib.sha256(data).hexdigest() for n, data in contents.items()})
    return archive


def leftovers(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").iterdir()) if (tmp_path / "cache").exists() else []


def test_what_npm_packs_is_kept_with_its_licences(registry, tmp_path):
    assert find_assets() is None
    fetched = fetch_assets()
    assert fetched == find_assets()
    assert {path.name for path in fetched.folder.iterdir()} == {*FILES, "LICENSE", "ThirdPartyNotices.txt"}
    assert "MIT License" in fetched.files["LICENSE"].read_text()
    assert leftovers(tmp_path) == ["ort"]


def test_the_package_is_looked_at_before_the_cache(registry, tmp_path):
    fetch_assets()
    fetch_assets(tmp_path / "inside")
    assert find_assets().folder == tmp_path / "inside"


def test_make_web_fetches_into_the_package(registry, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "asset_folders", assets.asset_folders)
    assert fetch.main() == 0
    assert find_assets().folder == tmp_path / "inside"
    registry.unlink()
    assert fetch.main() == 2
    assert capsys.readouterr().err.startswith("vitrail: npm could not fetch")


def test_an_archive_that_was_not_pinned_is_not_unpacked(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "INTEGRITY", "sha512-" + "A" * 86 + "==")
    with pytest.raises(BenchError, match=r"another .* than the one that was pinned"):
        fetch_assets()
    assert leftovers(tmp_path) == []
    assert find_assets() is None


def test_a_damaged_file_is_noticed_and_replaced(registry):
    fetched = fetch_assets()
    name = next(iter(FILES))
    (fetched.folder / name).write_text("cut")
    assert find_assets() is None
    assert fetch_assets() == find_assets()


def test_without_npm_the_remedy_is_told(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(BenchError, match=r"npm, which would fetch it, is not installed; install Node\.js"):
        fetch_assets()


def test_what_npm_complains_of_is_told(registry, tmp_path):
    registry.unlink()
    with pytest.raises(BenchError, match=r"npm could not fetch .* network is down; try: npm pack onnxruntime-web@"):
        fetch_assets()
    assert leftovers(tmp_path) == []


def test_the_pins_have_the_form_that_npm_publishes():
    algorithm, _, digest = assets.INTEGRITY.partition("-")
    assert algorithm == "sha512"
    assert len(base64.b64decode(digest, validate=True)) == 64
    assert all(len(bytes.fromhex(sha)) == 32 for sha in FILES.values())
    assert {name.rpartition(".")[2] for name in FILES} == {"mjs", "wasm"}
