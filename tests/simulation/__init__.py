"""The store under a seeded event loop and a simulated PostgreSQL server.

The code of the package runs unchanged, with SQLAlchemy's pool and greenlets: `loop` is its event
loop, `driver` stands in for asyncpg, and `server` executes its statements in SQLite. Time is
virtual, and one integer decides each delay, fault and choice, so that it replays a failure:

    python -m tests.simulation --seeds 0-100000 --processes 2
    python -m tests.simulation --seed 42 --trace
"""
