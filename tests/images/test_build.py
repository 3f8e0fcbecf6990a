"""The build: what goes into the context, what an image's hash depends on, what is said and labelled."""

import io
import json
import shutil
import subprocess
import tarfile
import urllib.request

import pytest

from images import build, context, packages
from images.context import Context
from wattbench.analysis.model.errors import UserError


def asked(docker):
    return (docker / "calls").read_text()


def test_the_context_holds_the_images_own_folder_and_nothing_of_the_workload_owned_by_root():
    buffer = io.BytesIO()
    Context("apt-torch").write(buffer)
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        entries = archive.getmembers()
    found = [entry.name for entry in entries]
    assert "apt-torch/Dockerfile" in found
    assert not [name for name in found if "__pycache__" in name or not name.startswith("apt-torch")]
    assert {(entry.uid, entry.gid, entry.mode & 0o077) for entry in entries} == {(0, 0, 0o44)}


def test_the_context_begins_with_a_plain_tar_header():
    # Docker's client looks at the first 512 bytes only; a PAX header there passes for a Dockerfile.
    buffer = io.BytesIO()
    Context("pip-torch").write(buffer)
    assert buffer.getvalue()[156:157] == tarfile.REGTYPE


def test_installed_packages_appear_beside_the_dockerfile(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("")
    buffer = io.BytesIO()
    Context("pip-torch", tmp_path).write(buffer)
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        assert "pip-torch/site/torch/__init__.py" in archive.getnames()


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the images that a test may change."""
    folder = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "worker-host")
    shutil.copytree(context.FOLDER, folder, ignore=ignored)
    monkeypatch.setattr(context, "FOLDER", folder)
    return folder


@pytest.mark.parametrize("file", ["pip-torch/Dockerfile", "torch-cpu.txt"])
def test_an_images_hash_changes_with_each_file_that_goes_into_it(copied, file):
    before = Context("pip-torch").key("sha256:base")
    (copied / file).write_text((copied / file).read_text() + "\n")
    assert Context("pip-torch").key("sha256:base") != before


def test_an_images_hash_changes_with_its_base_and_with_nothing_else(copied):
    before = Context("pip-torch").key("sha256:base")
    (copied / "apt-torch" / "Dockerfile").write_text("FROM elsewhere")
    (copied / "workload" / "cli.py").write_text("raise SystemExit")  # mounted, not in the image
    (copied / "pip-torch" / "__pycache__").mkdir(exist_ok=True)
    (copied / "pip-torch" / "__pycache__" / "x.pyc").write_bytes(b"new")
    assert Context("pip-torch").key("sha256:base") == before
    assert Context("pip-torch").key("sha256:other") != before


def test_an_image_is_built_pushed_and_labelled_with_where_it_comes_from(docker):
    said = []
    made = build.build(
        "apt-torch", base="base:1", registry="127.0.0.1:5000", label="owner=me", say=said.append
    )
    key = Context("apt-torch").key("sha256:base")
    assert made.ref == f"127.0.0.1:5000/wattbench/apt-torch:{key}"
    assert (made.digest, made.size_bytes, made.reused) == ("sha256:" + 64 * "a", 1_500_000, False)
    assert "apt-torch: step 2/2 RUN make" in said
    for label in (
        "org.opencontainers.image.title=apt-torch",
        "org.opencontainers.image.base.name=base:1",
        "org.opencontainers.image.base.digest=sha256:d1",
        f"org.opencontainers.image.version={key}",
        "owner=me",
    ):
        assert f"--label {label}" in asked(docker)
    assert "org.opencontainers.image.created=20" in asked(docker)
    with tarfile.open(docker / "context.tar") as archive:
        assert "apt-torch/Dockerfile" in archive.getnames()


def test_an_image_made_from_the_same_inputs_is_used_again(docker):
    key = Context("apt-torch").key("sha256:base")
    known = [{"Id": "x", "Size": 7, "Config": {"Labels": {"wattbench.inputs": key}}}]
    (docker / "images" / "wattbench_apt-torch_demo").write_text(json.dumps(known))
    made = build.build("apt-torch", base="base:1", tag="demo", say=lambda line: None)
    assert (made.reused, made.size_bytes, made.digest) == (True, 7, None)
    assert "build" not in asked(docker)


def test_an_image_of_the_same_tag_from_other_inputs_is_built_anew(docker):
    known = [{"Id": "x", "Size": 7, "Config": {"Labels": {"wattbench.inputs": "old"}}}]
    (docker / "images" / "wattbench_apt-torch_demo").write_text(json.dumps(known))
    assert not build.build("apt-torch", base="base:1", tag="demo", say=lambda line: None).reused
    assert "build --tag wattbench/apt-torch:demo" in asked(docker)


def test_a_base_is_pulled_with_a_line_for_each_layer_that_arrives(docker):
    said = []
    assert build.build("apt-torch", base="base:2", say=said.append).base == "base:2"
    assert said[:3] == ["pulling base:2", "base:2: 2 of 3 layers", "base:2: 3 of 3 layers"]


def test_a_base_that_cannot_be_had_is_distinguished_from_a_build_that_fails(docker):
    with pytest.raises(build.BaseError, match=r"base absent:1 can't be pulled: .*no such host"):
        build.build("apt-torch", base="absent:1", say=lambda line: None)


def test_a_push_that_is_refused_says_what_to_do(docker):
    with pytest.raises(UserError, match=r"is denied; docker login far\.example first$"):
        build.build("apt-torch", base="base:1", registry="far.example/team", say=lambda line: None)


def test_a_failed_step_is_named_with_its_last_words_and_the_log(docker):
    (docker / "broken").touch()
    with pytest.raises(UserError, match=r"failed at 2/2 RUN make: make: no rule; see log/apt"):
        build.build("apt-torch", base="base:1", say=lambda line: None)


def test_an_unknown_image_and_a_bad_label_are_one_line_each(docker, capsys):
    assert build.main(["no-such", "--base", "base:1"]) == 2
    assert build.main(["apt-torch", "--base", "base:1", "--label", "x"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("images: 'no-such' is none of apt-numpy, ")
    assert errors[1] == "images: label 'x' is not KEY=VALUE"


def test_without_docker_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.main(["apt-torch", "--base", "base:1"]) == 2
    assert "the docker command is missing; install it" in capsys.readouterr().err


def test_credentials_in_the_repositorys_address_stay_out_of_the_labels(docker, tmp_path):
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    address = "https://user:secret@example.org/a/b"
    subprocess.run([*git, "remote", "add", "origin", address], check=True)
    build.build("apt-torch", base="base:1", say=lambda line: None)
    assert "org.opencontainers.image.source=https://example.org/a/b" in asked(docker)
    assert "secret" not in asked(docker)


def test_trimming_removes_what_import_does_not_need(tmp_path):
    torch = tmp_path / "torch"
    for name in (
        "include/a.h",
        "test/t.py",
        "share/c.cmake",
        "bin/protoc",
        "bin/torch_shm_manager",
    ):
        path = torch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (torch / "lib").mkdir()
    subprocess.run(["sh", context.FOLDER / "trim.sh", tmp_path], check=True)
    left = {str(path.relative_to(torch)) for path in torch.rglob("*") if path.is_file()}
    assert left == {"bin/torch_shm_manager"}


def test_wheels_are_served_as_a_page_of_links(tmp_path, monkeypatch):
    requirements = tmp_path / "r.txt"
    requirements.write_text("one==1\n")

    def download(argv, what):
        folder = context.Path(argv[argv.index("--dest") + 1])
        folder.mkdir(parents=True)
        (folder / "one-1-py3-none-any.whl").write_bytes(b"wheel")

    monkeypatch.setattr(packages, "_VAR", tmp_path)
    monkeypatch.setattr(packages, "_run", download)
    with packages.served([requirements], "3.11", lambda line: None) as address:
        page = urllib.request.urlopen(address).read().decode()
        assert 'href="one-1-py3-none-any.whl"' in page
        assert urllib.request.urlopen(f"{address}one-1-py3-none-any.whl").read() == b"wheel"
        with packages.served([requirements], "3.11", lambda line: None) as beside:
            assert beside != address
            assert urllib.request.urlopen(beside).read().decode() == page
    # what Docker has built with this address it takes from its cache the next time
    with packages.served([requirements], "3.11", lambda line: None) as again:
        assert again == address


def test_a_package_that_cannot_be_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "STORE", tmp_path)
    requirements = tmp_path / "none" / "r.txt"
    requirements.parent.mkdir()
    requirements.write_text("not a requirement\n")
    with pytest.raises(UserError, match=r"^images: installing r\.txt of none failed: .+"):
        packages.install(requirements, "3.11", lambda line: None)
