"""`raymill serve keys`: make, list and revoke the API keys of this home's services."""

from __future__ import annotations

import argparse

from raymill.errors import UsageError
from raymill.tracking.home import Home

from .output import emit_json, emit_table

_USAGE = "raymill serve keys add HOLDER | list | revoke HOLDER [ID]"


def keys_of(options: argparse.Namespace) -> None:
    """One of the three, by the words after `keys`.

    Raises:
        UsageError: other words, or a holder or key that there isn't.
    """
    match options.more:
        case ["add", holder]:
            _add(options, holder)
        case ["list"]:
            _list(options)
        case ["revoke", holder]:
            _revoke(options, holder, None)
        case ["revoke", holder, id_]:
            _revoke(options, holder, id_)
        case _:
            got = " ".join(options.more) or "nothing"
            raise UsageError(f"serve keys takes add, list or revoke, but got {got}", cure=f"{_USAGE}.")


def _add(options: argparse.Namespace, holder: str) -> None:
    from raymill.serving.keys import add

    key, text = add(Home.find().path, holder)
    if options.json:
        emit_json({"ok": True, "holder": holder, "id": key.id, "key": text})
    else:
        print(f"{text}\n  {holder}'s key {key.id}; it is not shown again\n"
              "  send it as: Authorization: Bearer KEY, or set RAYMILL_API_KEY")


def _list(options: argparse.Namespace) -> None:
    from raymill.serving.keys import live

    found = live(Home.find().path)
    if options.json:
        emit_json({"ok": True, "keys": [
            {"holder": key.holder, "id": key.id, "created": key.created} for key in found]})
    elif found:
        emit_table("keys", ["holder", "id", "created"],
                   [[key.holder, key.id, key.created] for key in found])
    else:
        print("there are no keys; make one: raymill serve keys add HOLDER")


def _revoke(options: argparse.Namespace, holder: str, id_: str | None) -> None:
    from raymill.serving.keys import revoke

    key = revoke(Home.find().path, holder, id_)
    if options.json:
        emit_json({"ok": True, "revoked": key.id})
    else:
        print(f"revoked {holder}'s key {key.id}; services refuse it within a second")
