"""Names, ports and files of one checkout."""

from __future__ import annotations

import json
import multiprocessing
import socket
from pathlib import Path

import pytest

from demo.checkout import Checkout
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.local.state_folder import FIRST_PORT, LAST_PORT, is_free


def test_two_clones_share_no_name(tmp_path: Path) -> None:
    one, other = Checkout(tmp_path / "a"), Checkout(tmp_path / "b")
    assert one.id != other.id
    assert one.prefix != other.prefix
    assert one.label != other.label


def test_the_id_depends_on_the_path_alone(tmp_path: Path) -> None:
    # SHA-256 of "/srv/wattbench" by coreutils: printf /srv/wattbench | sha256sum
    assert Checkout(Path("/srv/wattbench")).id == "4c225511"
    assert Checkout(tmp_path).id == Checkout(tmp_path).id


def test_a_port_is_chosen_once_and_kept(tmp_path: Path) -> None:
    port = Checkout(tmp_path).port("store")
    assert FIRST_PORT <= port < LAST_PORT
    assert Checkout(tmp_path).port("store") == port
    assert json.loads((tmp_path / "var/demo/ports.json").read_text()) == {"store": port}


def test_services_get_different_ports_before_any_of_them_listens(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert len({checkout.port(name) for name in ("store", "registry", "airflow-api")}) == 3


def test_a_kept_port_that_another_process_took_is_replaced(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    port = checkout.port("store")
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        assert not is_free(port, "127.0.0.1")
        assert checkout.free_port("store") != port
    assert checkout.port("store") != port, "the replacement is kept too"


def test_an_address_that_is_not_there_yet_counts_as_free() -> None:
    assert is_free(FIRST_PORT, "192.0.2.77")  # RFC 5737: for documentation, on no machine


def _hold(root: Path, held: multiprocessing.synchronize.Event, done: object) -> None:
    with Checkout(root).lock("demo"):
        held.set()
        done.wait()  # type: ignore[attr-defined]


def test_a_second_demo_says_which_process_is_at_work(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(tmp_path, held, done))
    first.start()
    try:
        assert held.wait(20)
        with (
            pytest.raises(UserError, match=rf"another demo is at work .*process {first.pid}\b"),
            Checkout(tmp_path).lock("demo"),
        ):
            pytest.fail("two demos at once")
    finally:
        done.set()
        first.join(20)
    with Checkout(tmp_path).lock("demo"):
        pass


def test_a_secret_is_never_readable_by_others_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_atomically(file, "one", mode=0o600)
    write_atomically(file, "two", mode=0o600)
    assert file.read_text() == "two"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
