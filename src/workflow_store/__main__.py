"""`python -m workflow_store` runs the command `workflow-store`."""

from .cli import main

main()
