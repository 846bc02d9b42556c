"""Partitioned tables, made as the documentation says."""

from __future__ import annotations

import re

import asyncpg

from . import ROOT

__all__ = ["partition"]

PAGE = ROOT / "docs" / "scaling.md"


async def partition(url: str, *, schema: str | None = None) -> None:
    """Turn the tables of a database into partitioned ones, with the rows in them."""
    (recipe,) = re.findall(
        r"^```sql\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    connection = await asyncpg.connect(url)
    try:
        if schema is not None:
            await connection.execute(f'SET search_path = "{schema}"')
        await connection.execute(recipe)
    finally:
        await connection.close()
