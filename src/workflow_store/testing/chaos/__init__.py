"""Processes that use a store while everything around it fails: `make chaos`."""
