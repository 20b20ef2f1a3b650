"""Ports for servers that are started here."""

from featurestore.ports import free_port, free_ports


def test_a_port_is_not_given_again_before_whoever_got_it_may_listen() -> None:
    given = [*free_ports(100), *(free_port() for _ in range(100))]
    assert len(set(given)) == len(given)
