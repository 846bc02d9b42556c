"""The SQL of a store, one module per purpose."""
