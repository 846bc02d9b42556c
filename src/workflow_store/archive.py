"""Runs as lines of text, to be kept in a file or handed to another program.

One run is one line of JSON, `{"run": {…}, "steps": […]}`, in the wire form of the state
objects and with the steps in their order. It is JSON Lines (https://jsonlines.org): UTF-8,
a line feed after each line.
"""

from __future__ import annotations

from pydantic import ValidationError

from . import json_codec
from .errors import InvalidStateError
from .state import WorkflowExecutionState, WorkflowStepState
from .store import RunSnapshot

__all__ = ["from_line", "to_line"]

_LONGEST = 100
"""Of the name of a field that there is not."""


def to_line(snapshot: RunSnapshot) -> str:
    """Give the line of a run, without the line feed."""
    steps = ",".join(step.model_dump_json() for step in snapshot.steps)
    return f'{{"run":{snapshot.run.model_dump_json()},"steps":[{steps}]}}'


def from_line(line: str | bytes) -> RunSnapshot:
    """Give the run of a line.

    Raises:
        InvalidStateError: it is no such line; the message names the field that is wrong and
            holds no value.
    """
    try:
        members = json_codec.decode(line if isinstance(line, str) else line.decode())
    except UnicodeDecodeError:
        raise InvalidStateError("not UTF-8") from None
    except ValueError as error:
        raise InvalidStateError(str(error)) from None
    if (
        not isinstance(members, dict)
        or members.keys() != {"run", "steps"}
        or not isinstance(members["steps"], list)
    ):
        raise InvalidStateError('must be {"run": {…}, "steps": […]} and nothing else')
    where = "run"
    try:
        run = WorkflowExecutionState.model_validate(members["run"])
        steps = []
        for index, fields in enumerate(members["steps"]):
            where = f"steps[{index}]"
            steps.append(WorkflowStepState.model_validate(fields))
    except ValidationError as error:
        fault, *_ = error.errors(include_input=False, include_url=False)
        field = ".".join(map(str, (where, *fault["loc"])))[:_LONGEST]
        raise InvalidStateError(f"{field}: {fault['msg']}") from error
    if len({step.step_id for step in steps}) < len(steps):
        raise InvalidStateError("steps: a step_id stands twice")
    return RunSnapshot(run, steps)
