"""`python -m workflow_store` is the command `workflow-store`."""

from .cli import main

main()
