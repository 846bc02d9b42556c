"""Runs and steps in SQLite and PostgreSQL."""
